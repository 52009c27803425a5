// Package capture sees what passes a link, in one of two ways: a Tap writes the packets to a pcapng file, a Watcher only
// counts them by kind and so costs next to nothing.
//
// Both listen on packet sockets (AF_PACKET), which see every packet that an interface sends or receives once: what is
// sent after its queueing discipline, what is received after GRO. A GSO or GRO buffer of many packets is one packet here,
// as the kernel passes it. What never becomes a kernel packet (AF_XDP without copies, XDP redirection) is not seen.
package capture

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
)

// maxFilter is BPF_MAXINSNS.
const maxFilter = 4096

// open makes a packet socket on an interface that takes what filter accepts, from the first packet on. Its reads never
// block. set may set options before anything can arrive.
func open(ns *netns.Namespace, iface string, kind int, filter []bpf.Instruction, set func(fd int) error) (fd int, err error) {
	raw, err := assemble(filter)
	if err != nil {
		return -1, err
	}
	inside := func() error {
		// Protocol 0: nothing arrives before bind says so, when filter and options are in place.
		fd, err = unix.Socket(unix.AF_PACKET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	}
	if ns == nil {
		err = inside()
	} else {
		err = ns.Do(inside)
	}
	if errors.Is(err, unix.EPERM) {
		return -1, fmt.Errorf("packet socket: %w (it takes CAP_NET_RAW over the namespace)", err)
	}
	if err != nil {
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	if err := bind(fd, iface, raw, set); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// bind needs no thread in the namespace: a socket stays where it was made.
func bind(fd int, iface string, filter []unix.SockFilter, set func(fd int) error) error {
	req, err := unix.NewIfreq(iface)
	if err != nil {
		return fmt.Errorf("interface name %q: %w", iface, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
		return fmt.Errorf("no such interface: %w", err)
	}
	if err := attach(fd, filter); err != nil {
		return err
	}
	if err := set(fd); err != nil {
		return err
	}
	all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff}) // in network order
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: int(req.Uint32())}); err != nil {
		return fmt.Errorf("bind packet socket: %w", err)
	}
	return nil
}

func assemble(filter []bpf.Instruction) ([]unix.SockFilter, error) {
	if len(filter) > maxFilter {
		return nil, &TooLongError{Instructions: len(filter)}
	}
	raw, err := bpf.Assemble(filter)
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	out := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		out[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return out, nil
}

func attach(fd int, filter []unix.SockFilter) error {
	p := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &p); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	return nil
}

// reject makes a socket take nothing more, and returns when no packet is on its way into it any longer.
func reject(fd int) error {
	none, err := assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		return err
	}
	if err := attach(fd, none); err != nil {
		return err
	}
	// Packets are delivered to packet sockets within RCU read sections; MEMBARRIER_CMD_GLOBAL waits until those of this
	// moment are over. A kernel that has it not costs at most the packets of this instant.
	const global = 1
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0)
	return nil
}

// TooLongError says that a filter is longer than the kernel takes.
type TooLongError struct{ Instructions int }

func (e *TooLongError) Error() string {
	return fmt.Sprintf("a filter of %d instructions is longer than the kernel takes (%d); watch fewer subnets at a time",
		e.Instructions, maxFilter)
}
