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
		err = &os.PathError{Op: "open", Path: tunDevice, Err: err}
		return nil, fmt.Errorf("%w: %w; as root: modprobe tun && chmod 0666 %s", ErrUnavailable, err, tunDevice)
	}
	p, err := attachTUN(fd, name, h)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd)) // the device goes with its descriptor
	}
	return p, nil
}

func attachTUN(fd int, name string, h *netlink.Handle) (*Port, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return nil, fmt.Errorf("interface %q: name: %w", name, err)
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
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
	return &Port{
		kind: TUN, name: name, near: link, fd: fd,
		remove: func() error { return unix.Close(fd) },
	}, nil
}
