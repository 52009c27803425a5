package links

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/links/wire"
	"pqlab/topology"
)

// kernel answers whether the kernel has a qdisc, or TAP interfaces for us: nil if so, else why not.
type kernel struct {
	tbf, netem func() error
	seeds      func() bool // whether netem takes a seed; asked only if there is a netem
	tap        func() error
}

// probed asks the running kernel, each thing at most once and only when it matters.
func probed() kernel {
	tryNetem := sync.OnceValues(probeNetem)
	return kernel{
		tbf:   sync.OnceValue(ProbeTBF),
		netem: func() error { _, err := tryNetem(); return err },
		seeds: func() bool { seeded, _ := tryNetem(); return seeded },
		tap:   sync.OnceValue(wire.Probe),
	}
}

// MissingError says that the kernel was asked for something and has it not.
type MissingError struct {
	What   string // "netem"
	Option string // kernel option that gives it: "CONFIG_NET_SCH_NETEM"
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("this kernel has no %s (%s)", e.What, e.Option)
}

// Is makes it errors.ErrUnsupported.
func (e *MissingError) Is(target error) bool { return target == errors.ErrUnsupported }

// ProbeTBF tries a token bucket filter in a namespace of its own. It returns nil if that works, a *MissingError if the
// kernel has none, else why it could not be tried.
func ProbeTBF() error {
	return probe(&MissingError{"tbf", "CONFIG_NET_SCH_TBF"}, bucket(1e6, 65536), nil) // the MTU of lo
}

// ProbeNetem tries netem as ProbeTBF tries the token bucket filter.
func ProbeNetem() error {
	_, err := probeNetem()
	return err
}

// probeNetem says too whether it takes a seed, as Linux does from 6.6 on.
func probeNetem() (seeded bool, err error) {
	const seed = 0x5eed
	q := &rawQdisc{QdiscAttrs: netlink.QdiscAttrs{Handle: filterHandle, Parent: netlink.HANDLE_ROOT}, kind: "netem"}
	q.options = netemOptions(topology.Shape{Delay: time.Millisecond, Loss: 0.01}, spread{}, 1000, seed)
	err = probe(&MissingError{"netem", "CONFIG_NET_SCH_NETEM"}, q, func(ns *netns.Namespace, index int) error {
		options, err := readOptions(ns, index)
		if err != nil {
			return err
		}
		attrs, err := netemAttributes(options[q.Handle])
		seeded = bytes.Equal(attrs[netemSeed], long(seed))
		return err
	})
	return seeded, err
}

// probe puts q on lo in a namespace of its own, and calls then, if there is one, with the index of lo.
func probe(missing *MissingError, q netlink.Qdisc, then func(ns *netns.Namespace, index int) error) error {
	failed := func(err error) error { return fmt.Errorf("%s could not be tried: %w", missing.What, err) }
	nss, err := netns.New(1)
	if err != nil {
		return failed(err)
	}
	defer nss[0].Close()
	h, err := nss[0].Netlink()
	if err != nil {
		return failed(err)
	}
	lo, err := h.LinkByName("lo")
	if err != nil {
		return failed(err)
	}
	err = request(nss[0], lo.Attrs().Index, unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, q)
	if errors.Is(err, unix.ENOENT) { // the kernel knows no qdisc of that name, and found no module
		return missing
	}
	if err == nil && then != nil {
		err = then(nss[0], lo.Attrs().Index)
	}
	if err != nil {
		return failed(err)
	}
	return nil
}
