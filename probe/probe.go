// Package probe finds out what this machine can do, by doing it: each capability is tried in a network namespace made
// for that, the way pqlab would use it, and nothing is left behind.
package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/internal/vm/guest"
)

// Capability is what was found out about one thing.
type Capability struct {
	Name  string // "tun"
	Found bool
	How   string // how it was tried
	Seen  string // what was seen, of those where there is more than yes and no
	Why   error  // if it was not found: a *NotSupported if the machine has not got it, a *Failure if nobody knows
	Use   string // what pqlab does with it, or without it, or not knowing
}

// Known tells whether the probe had an answer, be it yes or no.
func (c Capability) Known() bool {
	var missing *NotSupported
	return c.Found || errors.As(c.Why, &missing)
}

// MarshalJSON gives Why as its text.
func (c Capability) MarshalJSON() ([]byte, error) {
	out := struct {
		Name  string `json:"name"`
		Found bool   `json:"found"`
		Known bool   `json:"known"`
		How   string `json:"how"`
		Seen  string `json:"seen,omitempty"`
		Why   string `json:"why,omitempty"`
		Use   string `json:"use"`
	}{c.Name, c.Found, c.Known(), c.How, c.Seen, "", c.Use}
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

// For tells of something that cannot be had for want of this.
func (e *NotSupported) For(what, instead string) *NotSupported {
	return &NotSupported{What: what, Needs: e.Needs, Instead: instead, Err: fmt.Errorf("no %s: %w", e.What, e.Err)}
}

// Failure says that a probe found nothing out, so that nobody knows whether this machine has the thing. It is no reason to
// do without.
type Failure struct {
	What string // "esp"
	How  string // what the probe does, as of a Capability
	Err  error
}

func (e *Failure) Error() string {
	return fmt.Sprintf("%s: probe failed, so nobody knows whether it is there: %v (the probe: %s)", e.What, e.Err, e.How)
}

func (e *Failure) Unwrap() error { return e.Err }

// limit is the time that one probe may take, a module's loading included. It is for a kernel that hangs: on an idle machine
// all take 100 ms together, and a busy one is to have its time.
const limit = 30 * time.Second

// patience is how long a probe is waited for.
func patience() time.Duration {
	if guest.Emulated() {
		return 8 * limit
	}
	return limit
}

// workers is how many probes run at a time: they wait for the kernel more than they compute.
const workers = 4

// All tries everything. A probe that has not come back when ctx ends, or in good time, is a *Failure.
func All(ctx context.Context) []Capability {
	ctx, cancel := context.WithTimeout(ctx, 2*patience()) // where all of them hang
	defer cancel()
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
	unsure  string // what it does if the probe failed; empty: what needs the thing finds out itself
	rights  bool   // having it includes that this user may: a refusal is an answer
	try     func() (seen string, err error)
}

func (t trial) run(ctx context.Context) Capability {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, patience())
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
		c.Why = t.failed(fmt.Errorf("no answer within %v: %w", time.Since(began).Round(time.Millisecond), context.Cause(ctx)))
	}
	switch c.Found = c.Why == nil; {
	case c.Found:
		c.Use = t.use
	case c.Known():
		c.Use = t.without
	default:
		c.Use = t.unsure
	}
	return c
}

func (t trial) failed(err error) *Failure { return &Failure{What: t.name, How: t.how, Err: err} }

// explain makes of the kernel's refusal a *NotSupported, and of all that says nothing about whether the machine has the
// thing a *Failure.
func (t trial) explain(err error) error {
	var nowhere *netns.UnavailableError // to try it
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errUnplaced), errors.As(err, &nowhere) && !t.rights:
		return t.failed(err)
	case lack(err), t.rights && denied(err):
		return &NotSupported{What: t.name, Needs: t.needs, Instead: t.instead, Err: err}
	}
	return t.failed(err)
}

// lack tells whether err is what a kernel, or a machine, answers that has not got what it was asked for.
func lack(err error) bool {
	return errors.Is(err, errMissing) || errors.Is(err, errBootsNone) || errors.Is(err, exec.ErrNotFound) ||
		is(err, unix.ENOENT, unix.ENODEV, unix.ENXIO, unix.ENOSYS, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT,
			unix.ENOPROTOOPT, unix.ESOCKTNOSUPPORT)
}

// denied tells whether err is what a user gets who may not have it, by rights or by a limit. A kernel without namespaces
// calls the wish for one invalid.
func denied(err error) bool {
	return is(err, unix.EPERM, unix.EACCES, unix.EROFS, unix.ENOSPC, unix.EUSERS, unix.EINVAL)
}

func is(err error, of ...unix.Errno) bool {
	return slices.ContainsFunc(of, func(e unix.Errno) bool { return errors.Is(err, e) })
}

// errMissing is of what is not there and of which the kernel cannot be asked.
var errMissing = errors.New("not found")

// errUnplaced is of what could not be tried for want of a place to do it.
var errUnplaced = errors.New("no network namespace to try it in")

func unplaced(err error) error { return fmt.Errorf("%w: %w", errUnplaced, err) }

// find runs the probe of that name.
func find(name string) error {
	for _, t := range table() {
		if t.name == name {
			return t.run(context.Background()).Why
		}
	}
	return fmt.Errorf("probe %q: there is none of that name", name)
}

// Each of these tries one capability. The error is a *NotSupported if the machine has not got it, a *Failure if nobody
// knows.

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
