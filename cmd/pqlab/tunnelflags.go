package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"pqlab/topology"
)

// tunnelFlags change every tunnel of a topology.
type tunnelFlags struct {
	keying, suite, combiner, identity, encapsulation, dataplane, family choice
	groups                                                              []string
	mutual                                                              bool
	time                                                                amount[time.Duration]
	blocks, bytes, packets, seed                                        amount[uint64]
	set                                                                 *pflag.FlagSet
}

// choice is a flag with a fixed set of values.
type choice struct {
	value string
	known []string
}

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return "name" }
func (c *choice) Set(v string) error {
	if !slices.Contains(c.known, v) {
		return fmt.Errorf("unknown; known: %s", strings.Join(c.known, ", "))
	}
	c.value = v
	return nil
}

// amount is a flag written as in a topology. 0 would mean the default there, so nobody can mean it here.
type amount[T time.Duration | uint64] struct {
	value T
	kind  string
	parse func(string) (T, error)
}

func (a *amount[T]) Type() string { return a.kind }
func (a *amount[T]) String() string {
	if a.value == 0 {
		return ""
	}
	return fmt.Sprint(a.value)
}
func (a *amount[T]) Set(text string) error {
	v, err := a.parse(text)
	if err == nil && v == 0 {
		err = errors.New("is 0; leave the flag out for what the topology says")
	}
	a.value = v
	return err
}

func addTunnelFlags(c *cobra.Command) *tunnelFlags {
	f := &tunnelFlags{
		keying:        choice{known: []string{topology.Pqlab, topology.Strongswan}},
		suite:         choice{known: topology.Suites()},
		combiner:      choice{known: []string{"xor", "hardened"}},
		identity:      choice{known: []string{"fresh", "pinned"}},
		encapsulation: choice{known: []string{"udp", "esp"}},
		dataplane:     choice{known: []string{"auto", "gateway", "xfrm", "offload"}},
		family:        choice{known: []string{"ipv4", "ipv6"}},
		time:          amount[time.Duration]{kind: "time", parse: topology.ParseTime},
		blocks:        amount[uint64]{kind: "count", parse: topology.ParseCount},
		bytes:         amount[uint64]{kind: "size", parse: topology.ParseBytes},
		packets:       amount[uint64]{kind: "count", parse: topology.ParseCount},
		seed:          amount[uint64]{kind: "number", parse: topology.ParseCount},
		set:           c.Flags(),
	}
	f.set.Var(&f.keying, "keying", "pqlab, or strongswan: classical IKEv2, whatever the topology says of pqlab's exchange")
	f.set.Var(&f.suite, "suite", "signature and KEM of every tunnel, such as mldsa65+mlkem768")
	f.set.Var(&f.combiner, "combiner", "xor or hardened")
	f.set.Var(&f.identity, "identity", "fresh (a signature key for each exchange) or pinned")
	f.set.Var(&f.encapsulation, "encapsulation", "udp (RFC 3948) or esp (IP protocol 50)")
	f.set.Var(&f.dataplane, "dataplane", "auto, gateway, xfrm or offload")
	f.set.Var(&f.family, "family", "of the outer addresses: ipv4 or ipv6")
	f.set.StringSliceVar(&f.groups, "tls-groups", nil, "TLS groups to offer, such as X25519MLKEM768")
	f.set.BoolVar(&f.mutual, "mutual", false, "both ends sign")
	f.set.Var(&f.time, "rekey-time", "replace keys after this time, such as 10m")
	f.set.Var(&f.blocks, "rekey-blocks", "replace keys after so many cipher blocks of 16 bytes, such as 2^30")
	f.set.Var(&f.bytes, "rekey-bytes", "replace keys after so many bytes, such as 64GiB")
	f.set.Var(&f.packets, "rekey-packets", "replace keys after so many packets")
	f.set.Var(&f.seed, "seed", "of every random choice of the links")
	return f
}

// plan reads a topology, changes its tunnels as the flags say, and plans it.
func (f *tunnelFlags) plan(name string) (*topology.Plan, error) {
	if f.set.Changed("tls-groups") && len(f.groups) == 0 {
		return nil, usageError{fmt.Errorf("--tls-groups names none; known: %s", strings.Join(topology.TLSGroups(), ", "))}
	}
	t, err := load(name)
	if err != nil {
		return nil, err
	}
	if changed := slices.DeleteFunc(f.changed(), func(n string) bool { return n == "--seed" }); len(t.Tunnels) == 0 && len(changed) > 0 {
		return nil, usageError{fmt.Errorf("%s: %s has no tunnels", strings.Join(changed, ", "), name)}
	}
	for i := range t.Tunnels {
		f.apply(&t.Tunnels[i])
	}
	if f.set.Changed("seed") {
		t.Seed = f.seed.value
	}
	p, err := t.Plan()
	if err != nil {
		if changed := f.changed(); len(changed) > 0 {
			return nil, usageError{fmt.Errorf("with %s: %w", strings.Join(changed, ", "), err)}
		}
		return nil, err
	}
	return p, nil
}

func (f *tunnelFlags) apply(t *topology.Tunnel) {
	if f.keying.value != "" {
		t.Keying = f.keying.value
	}
	if f.keying.value == topology.Strongswan {
		t.Suite, t.Combiner, t.Identity, t.Mutual, t.TLSGroups, t.CA = "", "", "", false, nil, ""
	}
	for _, s := range []struct {
		from *choice
		to   *string
	}{
		{&f.suite, &t.Suite}, {&f.combiner, &t.Combiner}, {&f.identity, &t.Identity},
		{&f.encapsulation, &t.Encapsulation}, {&f.dataplane, &t.Dataplane}, {&f.family, &t.Family},
	} {
		if s.from.value != "" {
			*s.to = s.from.value
		}
	}
	if len(f.groups) > 0 {
		t.TLSGroups = f.groups
	}
	if f.set.Changed("mutual") {
		t.Mutual = f.mutual
	}
	if f.set.Changed("rekey-time") {
		t.Rekey.Time = f.time.value
	}
	if f.set.Changed("rekey-blocks") {
		t.Rekey.Blocks = f.blocks.value
	}
	if f.set.Changed("rekey-bytes") {
		t.Rekey.Bytes = f.bytes.value
	}
	if f.set.Changed("rekey-packets") {
		t.Rekey.Packets = f.packets.value
	}
}

func (f *tunnelFlags) changed() []string {
	var names []string
	for _, n := range []string{
		"keying", "suite", "combiner", "identity", "encapsulation", "dataplane", "family", "tls-groups", "mutual",
		"rekey-time", "rekey-blocks", "rekey-bytes", "rekey-packets", "seed",
	} {
		if f.set.Changed(n) {
			names = append(names, "--"+n)
		}
	}
	return names
}
