package lab

import (
	"errors"
	"fmt"

	"pqlab/ipsec/strongswan"
	"pqlab/probe"
	"pqlab/topology"
)

// errOptions are of a lab that is to look into tunnels which strongSwan keys.
var errOptions = fmt.Errorf("strongSwan runs by the machine's clock and keeps its secrets to itself: %w", errors.ErrUnsupported)

// chooseKeying says at which nodes strongSwan keys the tunnels, and where it is. A node has one keying daemon.
func chooseKeying(plan *topology.Plan, o Options) (map[string]*strongswan.Installation, error) {
	by := map[string]string{} // by node
	for _, t := range plan.Tunnels {
		for _, node := range []string{t.A.Node, t.B.Node} {
			if has, ok := by[node]; ok && has != t.Keying {
				return nil, fmt.Errorf("tunnel %s: keying %s, but another tunnel of node %s has %s: a node has one", t.Name, t.Keying, node, has)
			}
			by[node] = t.Keying
		}
	}
	at := map[string]*strongswan.Installation{}
	var found *strongswan.Installation
	for _, t := range plan.Tunnels {
		if t.Keying != topology.Strongswan {
			continue
		}
		if found == nil {
			i, err := findStrongswan(o)
			if err != nil {
				return nil, fmt.Errorf("tunnel %s: %w", t.Name, err)
			}
			found = &i
		}
		at[t.A.Node], at[t.B.Node] = found, found
	}
	return at, nil
}

// Strongswan is nil where this machine can have tunnels that strongSwan keys. What it lacks is errors.ErrUnsupported.
func Strongswan() error {
	_, err := findStrongswan(Options{})
	return err
}

// findStrongswan finds all that a tunnel keyed by strongSwan takes.
func findStrongswan(o Options) (i strongswan.Installation, err error) {
	if err := kernelForStrongswan([]func() error{probe.XFRMPolicies, probe.ESP, probe.XFRMInterface, probe.NFTables}); err != nil {
		return i, err
	}
	if o.ManualClock || o.Reveal || o.Seq != 0 {
		return i, errOptions
	}
	unpacked, err := strongswan.CacheDir()
	if err != nil {
		return i, err
	}
	if i, err = strongswan.Find(unpacked); err != nil {
		return i, notFound(err)
	}
	return i, nil
}

// kernelForStrongswan is nil where every probe is, and a *probe.NotSupported where one is: then it makes no difference that
// another has failed.
func kernelForStrongswan(probes []func() error) error {
	var failed error
	for _, try := range probes {
		err := try()
		var lacks *probe.NotSupported
		if errors.As(err, &lacks) {
			return lacks.For("keying strongswan", "pqlab vm -- pqlab … runs it in a guest kernel that has it; --keying pqlab does without")
		}
		if failed == nil {
			failed = err
		}
	}
	if failed != nil {
		return fmt.Errorf("keying strongswan: %w; try again, or else --keying pqlab does without", failed)
	}
	return nil
}

func notFound(err error) error {
	if errors.Is(err, strongswan.ErrMissing) {
		return &probe.NotSupported{What: "keying strongswan", Err: err}
	}
	return fmt.Errorf("keying strongswan: %w", err)
}
