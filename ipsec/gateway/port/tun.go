package port

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const tunDevice = "/dev/net/tun"

func openTUN(name string, h *netlink.Handle) (*Port, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, openError(err)
	}
	p, err := attachTUN(fd, name, h)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd)) // the device goes with its descriptor
	}
	return p, nil
}

// openError says why the device could not be opened. That there is none, or none for us, is ErrUnavailable. All else, as too
// many open files, says nothing about this machine.
func openError(err error) error {
	path := &os.PathError{Op: "open", Path: tunDevice, Err: err}
	switch err {
	case unix.ENOENT, unix.ENODEV, unix.ENXIO, unix.EACCES, unix.EPERM:
		return fmt.Errorf("%w: %w; as root: modprobe tun && chmod 0666 %s", ErrUnavailable, path, tunDevice)
	}
	return fmt.Errorf("no inner port could be made: %w", path)
}

// queueLen is how many packets a TUN device holds for its reader, who on a busy machine is not run for a while: 160 ms of
// 100 Mbit/s in packets of 500 bytes. The kernel's 500 packets are 20 ms of that.
const queueLen = 4000

func attachTUN(fd int, name string, h *netlink.Handle) (*Port, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return nil, fmt.Errorf("interface %q: name: %w", name, err)
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	switch err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); {
	case errors.Is(err, unix.EPERM): // no right to the namespace, or a security module's no
		return nil, fmt.Errorf("%w: interface %s: TUNSETIFF: %w", ErrUnavailable, name, err)
	case err != nil:
		return nil, fmt.Errorf("interface %s: TUNSETIFF: %w", name, err)
	}
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	// Linux before 6.2 has no USO: it then cuts UDP super-packets itself.
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp|unix.TUN_F_USO4|unix.TUN_F_USO6); err != nil {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp); err != nil {
			return nil, fmt.Errorf("interface %s: TUNSETOFFLOAD: %w", name, err)
		}
	}
	link, err := prepare(h, name)
	if err != nil {
		return nil, err
	}
	if err := h.LinkSetTxQLen(link, queueLen); err != nil {
		return nil, fmt.Errorf("interface %s: queue of %d: %w", name, queueLen, err)
	}
	return &Port{
		kind: TUN, name: name, near: link, fd: fd,
		remove: func() error { return unix.Close(fd) },
	}, nil
}
