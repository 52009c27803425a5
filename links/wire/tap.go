package wire

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
)

const tunDevice = "/dev/net/tun"

// UnavailableError says that this process can make no TAP interfaces. It is errors.ErrUnsupported.
type UnavailableError struct {
	Err error // what the kernel said
}

func (e *UnavailableError) Error() string {
	remedy := "as root: modprobe tun (CONFIG_TUN)"
	if errors.Is(e.Err, unix.EACCES) || errors.Is(e.Err, unix.EPERM) {
		remedy = "as root: chmod 0666 " + tunDevice
	}
	return fmt.Sprintf("no TAP interfaces: %v; %s", e.Err, remedy)
}

func (e *UnavailableError) Unwrap() error        { return e.Err }
func (e *UnavailableError) Is(target error) bool { return target == errors.ErrUnsupported }

// Probe makes a TAP interface in a namespace of its own. It returns nil if that works, an *UnavailableError if this
// process may not, else why it could not be tried.
func Probe() error {
	nss, err := netns.New(1)
	if err != nil {
		return fmt.Errorf("TAP interfaces could not be tried: %w", err)
	}
	defer nss[0].Close()
	fd, err := openTAP(nss[0], "tap0")
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// openTAP makes a TAP interface in the namespace. It goes with the descriptor, which is what the kernel sends over the
// interface, and what it is given as received: each frame or large segment after a struct virtio_net_hdr.
func openTAP(ns *netns.Namespace, name string) (fd int, err error) {
	fd = -1
	err = ns.Do(func() (err error) { // the interface is made where the device is opened
		if fd, err = unix.Open(tunDevice, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
			return openError(err)
		}
		if err := attachTAP(fd, name); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		return nil
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// openError says why the device could not be opened: an *UnavailableError where there is none, or none for us. All else, as
// too many open files, says nothing about this machine.
func openError(err error) error {
	path := &os.PathError{Op: "open", Path: tunDevice, Err: err}
	switch err {
	case unix.ENOENT, unix.ENODEV, unix.ENXIO, unix.EACCES, unix.EPERM:
		return &UnavailableError{path}
	}
	return fmt.Errorf("TAP interface: %w", path)
}

func attachTAP(fd int, name string) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("interface %q: name: %w", name, err)
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	switch err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); {
	case errors.Is(err, unix.EBUSY): // what other kinds of interfaces say of a name that is taken
		return fmt.Errorf("interface %s: %w", name, unix.EEXIST)
	case errors.Is(err, unix.EPERM):
		return &UnavailableError{err}
	case err != nil:
		return fmt.Errorf("interface %s: TUNSETIFF: %w", name, err)
	}
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	// Linux before 6.2 has no USO: it then cuts large UDP segments itself.
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp|unix.TUN_F_USO4|unix.TUN_F_USO6); err != nil {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp); err != nil {
			return fmt.Errorf("interface %s: TUNSETOFFLOAD: %w", name, err)
		}
	}
	return nil
}
