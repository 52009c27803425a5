package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Sysctl is a kernel parameter of a namespace: Key is its path below /proc/sys, "net/ipv4/ip_forward".
type Sysctl struct {
	Key, Value string
}

// quiet are what a namespace and every interface made in it later start with, whatever the host does.
var quiet = [...]Sysctl{
	{"net/ipv4/ip_forward", "0"}, // IPv4's are copied from the host's namespace
	{"net/ipv4/conf/all/rp_filter", "0"},
	{"net/ipv4/conf/default/rp_filter", "0"},
	{"net/ipv6/conf/default/accept_dad", "0"}, // addresses work at once
	{"net/ipv6/conf/default/accept_ra", "0"},  // and with it no router is asked for
}

// differing gives those parameters that are not yet so in the namespace of the calling thread. A new namespace has them
// from the kernel and from the host's first namespace, so what holds for one holds for all. A parameter that is not
// there (a kernel without IPv6) needs no setting.
func differing(params []Sysctl) []Sysctl {
	var differ []Sysctl
	for _, p := range params {
		value, err := os.ReadFile(p.path())
		if err == nil && strings.TrimSpace(string(value)) != p.Value {
			differ = append(differ, p)
		}
	}
	return differ
}

func (s Sysctl) path() string { return filepath.Join("/proc/sys", s.Key) }

// Set writes kernel parameters in the order given and stops at the first that fails.
func (ns *Namespace) Set(params ...Sysctl) error {
	return ns.Do(func() error { return SetHere(params...) })
}

// SetHere is Set for a function that is already inside by Do.
func SetHere(params ...Sysctl) error {
	for _, p := range params {
		if err := p.write(); err != nil {
			return err
		}
	}
	return nil
}

// write sets the parameter in the namespace of the calling thread.
func (s Sysctl) write() error {
	f, err := os.OpenFile(s.path(), os.O_WRONLY, 0)
	if errors.Is(err, unix.EROFS) {
		return fmt.Errorf("sysctl %s=%s: %w, as in a container that is not --privileged", s.Key, s.Value, err)
	}
	if err != nil {
		return fmt.Errorf("sysctl %s=%s: %w", s.Key, s.Value, err)
	}
	defer f.Close()
	if _, err := f.WriteString(s.Value); err != nil {
		return fmt.Errorf("sysctl %s=%s: %w", s.Key, s.Value, err)
	}
	return nil
}

// linkUp brings an interface up in the namespace of the calling thread. It uses the ioctl because that costs a tenth of
// opening netlink.
func linkUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}
