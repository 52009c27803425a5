package port

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
)

// What the kernel has not got, or not for us, is unavailable. What it is out of is not.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		explain     func(error) error
		unavailable []unix.Errno
		not         []unix.Errno
	}{
		{"TUN", openError, []unix.Errno{unix.ENOENT, unix.ENODEV, unix.ENXIO, unix.EACCES, unix.EPERM},
			[]unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EINTR, unix.EIO, unix.EBUSY}},
		{"AF_PACKET", socketError, []unix.Errno{unix.EAFNOSUPPORT, unix.EACCES, unix.EPERM},
			[]unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS}},
		{"PACKET_VNET_HDR", func(err error) error { return optionError("PACKET_VNET_HDR", err) }, []unix.Errno{unix.ENOPROTOOPT},
			[]unix.Errno{unix.EBUSY, unix.EINVAL, unix.ENOMEM}},
	} {
		for want, all := range map[bool][]unix.Errno{true: c.unavailable, false: c.not} {
			for _, errno := range all {
				err := c.explain(errno)
				if errors.Is(err, ErrUnavailable) != want || errors.Is(err, errors.ErrUnsupported) != want || !errors.Is(err, errno) {
					t.Errorf("%s, %v: %v", c.name, errno, err)
				}
			}
		}
	}
}

// TestNoDescriptors opens ports in a process that may open no more files. It is not parallel: others wait for its end.
func TestNoDescriptors(t *testing.T) {
	nss, err := netns.New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer nss[0].Close()
	h, err := nss[0].Netlink()
	if err != nil {
		t.Fatal(err)
	}
	links := func() (n int) {
		all, err := h.LinkList()
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := links()
	opened := map[Kind]error{}
	if err := nss[0].Do(func() error {
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			return err
		}
		none := limit
		none.Cur = 0
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
			return err
		}
		for _, kind := range []Kind{Auto, TUN, Packet} {
			p, err := Open(kind, "in0", h)
			if err == nil {
				err = fmt.Errorf("opened a port: %w", p.Close())
			}
			opened[kind] = err
		}
		return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}); err != nil {
		t.Fatal(err)
	}
	for kind, err := range opened {
		if !errors.Is(err, unix.EMFILE) || errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if after := links(); after != before {
		t.Errorf("%d interfaces were left", after-before)
	}
	// It was for want of descriptors: now there is one.
	if err := nss[0].Do(func() error {
		p, err := Open(Packet, "in0", h)
		if err != nil {
			return err
		}
		return p.Close()
	}); err != nil {
		t.Error(err)
	}
	if _, err := h.LinkByName("in0"); !errors.As(err, new(netlink.LinkNotFoundError)) {
		t.Errorf("in0 is left: %v", err)
	}
}
