package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/internal/xfrmnl"
	"pqlab/ipsec/gateway/port"
	"pqlab/ipsec/xfrm"
	"pqlab/links"
)

// scratch runs f with a namespace that is gone afterwards, and lo in it.
func scratch(f func(ns *netns.Namespace, h *netlink.Handle, lo netlink.Link) error) (string, error) {
	nss, err := netns.New(1)
	if err != nil {
		return "", unplaced(err)
	}
	defer nss[0].Close()
	h, err := nss[0].Netlink()
	if err != nil {
		return "", unplaced(err)
	}
	lo, err := h.LinkByName("lo")
	if err != nil {
		return "", unplaced(err)
	}
	return "", f(nss[0], h, lo)
}

// tryUserNamespaces starts a program that does not exist: that it does not is found out inside, and so comes after every
// reason not to be let in.
func tryUserNamespaces() (string, error) {
	// A thread of its own that ends: the child's parent-death signal is the thread's.
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		pid, err := syscall.ForkExec("/proc/self/no such program", nil, &syscall.ProcAttr{
			Sys: &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
				Pdeathsig:   syscall.SIGKILL,
			},
		})
		switch {
		case err == nil:
			err = fmt.Errorf("process %d runs a program that does not exist", pid)
		case errors.Is(err, syscall.ENOENT):
			err = nil
		}
		result <- err
	}()
	if os.Geteuid() == 0 && !mapped() {
		return "as root; whether an ordinary user may is for that user to try", <-result
	}
	return "", <-result
}

// mapped tells whether this process is in a user namespace that is not the machine's own.
func mapped() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !slices.Equal(strings.Fields(string(b)), []string{"0", "0", "4294967295"})
}

func tryNetworkNamespaces() (string, error) {
	nss, err := netns.New(1) // with its lo up
	if err != nil {
		return "", err
	}
	return "", nss[0].Close()
}

func tryIPv6() (string, error) {
	return scratch(func(_ *netns.Namespace, h *netlink.Handle, lo netlink.Link) error {
		return h.AddrAdd(lo, &netlink.Addr{IPNet: host("fd00::1")})
	})
}

func tryVeth() (string, error) {
	return scratch(func(_ *netns.Namespace, h *netlink.Handle, _ netlink.Link) error {
		return h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "probe0"}, PeerName: "probe1"})
	})
}

func tryBridge() (string, error) {
	return scratch(func(_ *netns.Namespace, h *netlink.Handle, _ netlink.Link) error {
		return h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "probe0"}})
	})
}

// tryPort makes an inner port as the gateway does.
func tryPort(kind port.Kind) func() (string, error) {
	return func() (string, error) {
		return scratch(func(ns *netns.Namespace, h *netlink.Handle, _ netlink.Link) error {
			return ns.Do(func() error {
				p, err := port.Open(kind, "probe0", h)
				if err != nil {
					return err
				}
				return p.Close()
			})
		})
	}
}

func tryUDPOffload() (string, error) {
	return scratch(func(ns *netns.Namespace, _ *netlink.Handle, _ netlink.Link) error {
		return ns.Do(func() error {
			to, err := bound(unix.UDP_GRO, 1)
			if err != nil {
				return err
			}
			defer unix.Close(to)
			const size = 100
			from, err := bound(unix.UDP_SEGMENT, size)
			if err != nil {
				return err
			}
			defer unix.Close(from)
			name, err := unix.Getsockname(to)
			if err != nil {
				return err
			}
			if err := unix.Sendto(from, make([]byte, 3*size), 0, name); err != nil {
				return fmt.Errorf("send with UDP_SEGMENT: %w", err)
			}
			control := make([]byte, unix.CmsgSpace(4))
			for got := 0; got < 3*size; {
				n, nc, _, _, err := unix.Recvmsg(to, make([]byte, 4*size), control, 0)
				if err != nil {
					return fmt.Errorf("receive with UDP_GRO: %w", err)
				}
				if segment := groSize(control[:nc]); n != size && segment != size {
					return fmt.Errorf("%d bytes in segments of %d came, of 3 datagrams of %d: %w", n, segment, size, errMissing)
				}
				got += n
			}
			return nil
		})
	})
}

// bound opens a UDP socket on the loopback address with one option of UDP's.
func bound(option, value int) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	patience := unix.NsecToTimeval(int64(time.Second))
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_UDP, option, value),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
	)
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// groSize returns the size of the datagrams that UDP_GRO has joined, or 0.
func groSize(control []byte) int {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_UDP && m.Header.Type == unix.UDP_GRO && len(m.Data) >= 4 {
			return int(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return 0
}

func tryTBF() (string, error)   { return "", missing(links.ProbeTBF()) }
func tryNetem() (string, error) { return "", missing(links.ProbeNetem()) }

// missing makes of the links' way of saying it ours.
func missing(err error) error {
	var m *links.MissingError
	if errors.As(err, &m) {
		return errMissing // the table says the rest
	}
	return err
}

// tryESP installs SAs as the dataplane does.
func tryESP() (string, error) {
	return scratch(func(ns *netns.Namespace, _ *netlink.Handle, _ netlink.Link) error {
		err := ns.Do(xfrm.Probe)
		var kernel *xfrmnl.Error
		if errors.Is(err, errors.ErrUnsupported) && errors.As(err, &kernel) {
			return kernel // the table says the rest
		}
		if errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("%w: %w", errMissing, err)
		}
		return err
	})
}

func tryXFRMPolicies() (string, error) {
	return scratch(func(_ *netns.Namespace, h *netlink.Handle, _ netlink.Link) error {
		return h.XfrmPolicyAdd(&netlink.XfrmPolicy{
			Src: host("192.0.2.1"), Dst: host("192.0.2.2"), Dir: netlink.XFRM_DIR_OUT,
			Tmpls: []netlink.XfrmPolicyTmpl{{
				Src: net.IPv4(192, 0, 2, 1), Dst: net.IPv4(192, 0, 2, 2), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL,
			}},
		})
	})
}

func tryXFRMInterface() (string, error) {
	return scratch(func(_ *netns.Namespace, h *netlink.Handle, lo netlink.Link) error {
		return h.LinkAdd(&netlink.Xfrmi{LinkAttrs: netlink.LinkAttrs{Name: "probe0", ParentIndex: lo.Attrs().Index}, Ifid: 1})
	})
}

func tryNFTables() (string, error) {
	return scratch(func(ns *netns.Namespace, _ *netlink.Handle, _ netlink.Link) error {
		return ns.Do(func() error {
			conn, err := nftables.New()
			if err != nil {
				return err
			}
			table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "probe"})
			conn.AddChain(&nftables.Chain{
				Name: "probe", Table: table, Type: nftables.ChainTypeFilter,
				Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter,
			})
			return conn.Flush()
		})
	})
}

// host returns an address as the prefix of itself alone.
func host(s string) *net.IPNet {
	ip := net.ParseIP(s)
	if v4 := ip.To4(); v4 != nil {
		ip = v4
	}
	return &net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))}
}
