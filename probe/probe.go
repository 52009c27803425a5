// Package probe finds out what this machine can do, by doing it: each capability is tried in a network namespace made
// for that, the way pqlab would use it, and nothing is left behind.
package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"pqlab/internal/vm/guest"
)

// Capability is what was found out about one thing.
type Capability struct {
	Name  string // "tun"
	Found bool
	How   string // how it was tried
	Seen  string // what was seen, of those where there is more than yes and no
	Why   error  // if it was not found: a *NotSupported, or why it could not be tried
	Use   string // what pqlab does with it, or without it
}

// MarshalJSON gives Why as its text.
func (c Capability) MarshalJSON() ([]byte, error) {
	out := struct {
		Name  string `json:"name"`
		Found bool   `json:"found"`
		How   string `json:"how"`
		Seen  string `json:"seen,omitempty"`
		Why   string `json:"why,omitempty"`
		Use   string `json:"use"`
	}{c.Name, c.Found, c.How, c.Seen, "", c.Use}
	if c.Why != nil {
		out.Why = c.Why.Error()
	}
	return json.Marshal(out)
}

// NotSupported says that this machine has not got something, what it would take, and what there is instead.
type NotSupported struct {
	What    string // "netem"
	Needs   string // "CONFIG_NET_SCH_NETEM (module sch_netem)"
	Instead string // "--shaper=none runs labs without delay and loss"
	Err     error  // what the kernel said
}

func (e *NotSupported) Error() string {
	s := fmt.Sprintf("%s: %v", e.What, e.Err)
	if e.Needs != "" {
		s += "; it takes " + e.Needs
	}
	if e.Instead != "" {
		s += "; " + e.Instead
	}
	return s
}

func (e *NotSupported) Unwrap() error { return e.Err }

// Is makes it errors.ErrUnsupported.
func (e *NotSupported) Is(target error) bool { return target == errors.ErrUnsupported }

// limit is the time that one probe may take, a module's loading included. On an idle machine all take 100 ms together.
const limit = 5 * time.Second

// workers is how many probes run at a time: they wait for the kernel more than they compute.
const workers = 4

// All tries everything. A probe that has not come back when ctx ends, or within two seconds, is reported as not found.
func All(ctx context.Context) []Capability {
	all := table()
	out := make([]Capability, len(all))
	var g errgroup.Group
	g.SetLimit(workers)
	for i, t := range all {
		g.Go(func() error {
			out[i] = t.run(ctx)
			return nil
		})
	}
	g.Wait()
	return out
}

// trial is one line of the table.
type trial struct {
	name    string
	how     string
	needs   string // what it takes, for who has not got it
	instead string
	use     string // of what was found
	without string // what pqlab does if it was not found; empty: there is nothing it can do
	try     func() (seen string, err error)
}

func (t trial) run(ctx context.Context) Capability {
	limit := limit
	if guest.Emulated() { // what fails for want of time would be taken for what the kernel has not got
		limit *= 8
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type result struct {
		seen string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		seen, err := t.try()
		done <- result{seen, err}
	}()
	c := Capability{Name: t.name, How: t.how}
	select {
	case r := <-done:
		c.Seen, c.Why = r.seen, t.explain(r.err)
	case <-ctx.Done():
		c.Why = fmt.Errorf("%s: no answer: %w", t.name, context.Cause(ctx))
	}
	if c.Found = c.Why == nil; c.Found {
		c.Use = t.use
	} else {
		c.Use = t.without
	}
	return c
}

// explain makes of the kernel's refusal a *NotSupported. Other errors stay what they are: they say nothing about whether
// the machine has the thing.
func (t trial) explain(err error) error {
	var already *NotSupported
	switch {
	case err == nil, errors.As(err, &already):
		return err
	case refusal(err):
		return &NotSupported{What: t.name, Needs: t.needs, Instead: t.instead, Err: err}
	}
	return fmt.Errorf("%s could not be tried: %w", t.name, err)
}

// refusal tells whether err is what a kernel, or a machine, answers that has not got what it was asked for, or does not
// let this user have it.
func refusal(err error) bool {
	if errors.Is(err, errMissing) || errors.Is(err, errBootsNone) || errors.Is(err, exec.ErrNotFound) {
		return true
	}
	for _, e := range []error{
		unix.ENOENT, unix.ENODEV, unix.ENXIO, unix.ENOSYS, unix.EPERM, unix.EACCES, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT,
		unix.EAFNOSUPPORT, unix.ENOPROTOOPT, unix.EINVAL, unix.ESOCKTNOSUPPORT, unix.EROFS, unix.ENOSPC,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// errMissing is of what is not there and of which the kernel cannot be asked.
var errMissing = errors.New("not found")

// find runs the probe of that name.
func find(name string) error {
	for _, t := range table() {
		if t.name == name {
			return t.run(context.Background()).Why
		}
	}
	return fmt.Errorf("probe %q: there is none of that name", name)
}

// Each of these tries one capability. The error is a *NotSupported if the machine has not got it.

func UserNamespaces() error    { return find(userNamespaces) }
func NetworkNamespaces() error { return find(networkNamespaces) }
func IPv6() error              { return find(ipv6) }
func Veth() error              { return find(veth) }
func Bridge() error            { return find(bridge) }
func TUN() error               { return find(tun) }
func Packet() error            { return find(packet) }
func UDPOffload() error        { return find(udpOffload) }
func TBF() error               { return find(tbf) }
func Netem() error             { return find(netem) }
func ESP() error               { return find(esp) }
func XFRMPolicies() error      { return find(xfrmPolicies) }
func XFRMInterface() error     { return find(xfrmInterface) }
func NFTables() error          { return find(nfTables) }
func CPULimits() error         { return find(cpuLimits) }
func AES() error               { return find(aes) }
func KVM() error               { return find(kvm) }
func QEMU() error              { return find(qemu) }
