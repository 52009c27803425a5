package links

import (
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
)

// kernel answers whether the kernel has a qdisc: nil if so, else why not.
type kernel struct {
	tbf, netem func() error
}

// probed asks the running kernel, each thing at most once and only when it matters.
func probed() kernel {
	return kernel{tbf: sync.OnceValue(ProbeTBF), netem: sync.OnceValue(ProbeNetem)}
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
	return probe(&MissingError{"tbf", "CONFIG_NET_SCH_TBF"}, func(index int) netlink.Qdisc {
		return bucket(1e6, 65536, index) // the MTU of lo
	})
}

// ProbeNetem tries netem as ProbeTBF tries the token bucket filter.
func ProbeNetem() error {
	return probe(&MissingError{"netem", "CONFIG_NET_SCH_NETEM"}, func(index int) netlink.Qdisc {
		return netlink.NewNetem(
			netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
			netlink.NetemQdiscAttrs{Latency: 1000})
	})
}

func probe(missing *MissingError, qdisc func(index int) netlink.Qdisc) error {
	nss, err := netns.New(1)
	if err != nil {
		return fmt.Errorf("%s could not be tried: %w", missing.What, err)
	}
	defer nss[0].Close()
	h, err := nss[0].Netlink()
	if err != nil {
		return fmt.Errorf("%s could not be tried: %w", missing.What, err)
	}
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("%s could not be tried: %w", missing.What, err)
	}
	err = h.QdiscAdd(qdisc(lo.Attrs().Index))
	if errors.Is(err, unix.ENOENT) { // the kernel knows no qdisc of that name, and found no module
		return missing
	}
	if err != nil {
		return fmt.Errorf("%s could not be tried: %w", missing.What, err)
	}
	return nil
}
