package nodes

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/links"
	"pqlab/topology"
)

// spaces gives n namespaces that the test's end closes.
func spaces(t testing.TB, n int) []*netns.Namespace {
	t.Helper()
	nss, err := netns.New(n)
	if errors.Is(err, unix.EPERM) {
		t.Skip("needs CAP_SYS_ADMIN (root, or unshare -Urn): ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, ns := range nss {
			ns.Close()
		}
	})
	return nss
}

// eventually polls cond for a while.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain: ", what)
		}
	}
}

// wires makes veths "A-B" between namespaces by their index: interface ethB in A and ethA in B.
func wires(t testing.TB, nss []*netns.Namespace, pairs ...[2]int) {
	t.Helper()
	none, err := links.Choose(nil, "none")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pairs {
		link := topology.PlannedLink{Link: topology.Link{
			Name: fmt.Sprintf("%d-%d", p[0], p[1]), MTU: 1500,
			A: topology.End{Node: fmt.Sprint(p[0]), Interface: fmt.Sprintf("eth%d", p[1])},
			B: topology.End{Node: fmt.Sprint(p[1]), Interface: fmt.Sprintf("eth%d", p[0])},
		}}
		if _, err := links.Make(link, nss[p[0]], nss[p[1]], none); err != nil {
			t.Fatal(err)
		}
	}
}

func prefixes(s ...string) (ps []netip.Prefix) {
	for _, p := range s {
		ps = append(ps, netip.MustParsePrefix(p))
	}
	return ps
}

func via(dst, gateway string) topology.Route {
	return topology.Route{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(gateway)}
}

// reach connects from one namespace to an address of another, at the first try.
func reach(t testing.TB, from, to *netns.Namespace, address string) {
	t.Helper()
	var l net.Listener
	if err := to.Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(address, "0"))
		return err
	}); err != nil {
		t.Error(err)
		return
	}
	defer l.Close()
	if err := from.Do(func() error {
		c, err := net.DialTimeout("tcp", l.Addr().String(), time.Minute)
		if err != nil {
			return err
		}
		defer c.Close()
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			return err
		}
		var info *unix.TCPInfo
		var errInfo error
		if err := raw.Control(func(fd uintptr) { info, errInfo = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); err != nil || errInfo != nil {
			return errors.Join(err, errInfo)
		}
		// A second try of the neighbour's resolution would come after one second, as one of TCP would. The kernel counts them,
		// whenever this process is run to see it.
		if info.Total_retrans > 0 {
			t.Errorf("%s answers the try %d", address, info.Total_retrans+1)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func configure(t testing.TB, nss []*netns.Namespace, plan ...topology.PlannedNode) {
	t.Helper()
	for i, n := range plan {
		n.Name = fmt.Sprint(i)
		if err := Configure(nss[i], n); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPairIsReadyAtOnce(t *testing.T) {
	t.Parallel()
	nss := spaces(t, 2)
	wires(t, nss, [2]int{0, 1})
	configure(t, nss,
		topology.PlannedNode{Interfaces: []topology.Interface{
			{Name: "eth1", MTU: 1400, Addresses: prefixes("10.0.0.0/31", "fd00::/127")},
			{Name: "lo", Addresses: prefixes("192.168.1.1/32", "fd01::1/128")},
		}},
		topology.PlannedNode{
			Interfaces: []topology.Interface{{Name: "eth0", MTU: 1400, Addresses: prefixes("10.0.0.1/31", "fd00::1/127")}},
			Routes:     []topology.Route{via("192.168.1.1/32", "10.0.0.0"), via("fd01::1/128", "fd00::")},
		})
	for _, a := range []string{"10.0.0.0", "fd00::", "192.168.1.1", "fd01::1"} {
		reach(t, nss[1], nss[0], a)
	}
	if err := nss[0].Do(func() error {
		i, err := net.InterfaceByName("eth1")
		if err == nil && i.MTU != 1400 {
			t.Errorf("MTU %d", i.MTU)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	// Not even the link-local addresses wait for duplicate address detection.
	if err := nss[0].Do(func() error {
		table, err := os.ReadFile("/proc/thread-self/net/if_inet6")
		for line := range strings.Lines(string(table)) {
			var flags int
			if _, err := fmt.Sscanf(strings.Fields(line)[4], "%x", &flags); err != nil || flags&unix.IFA_F_TENTATIVE != 0 {
				t.Errorf("tentative: %s (%v)", line, err)
			}
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

func TestForwarding(t *testing.T) {
	t.Parallel()
	for _, forward := range []bool{true, false} {
		nss := spaces(t, 3)
		wires(t, nss, [2]int{0, 1}, [2]int{1, 2})
		configure(t, nss,
			topology.PlannedNode{
				Interfaces: []topology.Interface{{Name: "eth1", Addresses: prefixes("10.0.1.1/24", "fd00:1::1/64")}},
				Routes:     []topology.Route{via("0.0.0.0/0", "10.0.1.2"), via("::/0", "fd00:1::2")},
			},
			topology.PlannedNode{Forward: forward, Interfaces: []topology.Interface{
				{Name: "eth0", Addresses: prefixes("10.0.1.2/24", "fd00:1::2/64")},
				{Name: "eth2", Addresses: prefixes("10.0.2.2/24", "fd00:2::2/64")},
			}},
			topology.PlannedNode{
				Interfaces: []topology.Interface{{Name: "eth1", Addresses: prefixes("10.0.2.1/24", "fd00:2::1/64")}},
				Routes:     []topology.Route{via("10.0.1.0/24", "10.0.2.2"), via("fd00:1::/64", "fd00:2::2")},
			})
		if forward {
			reach(t, nss[0], nss[2], "10.0.2.1")
			reach(t, nss[0], nss[2], "fd00:2::1")
			continue
		}
		if err := nss[0].Do(func() error {
			for _, a := range []string{"10.0.2.1:9", "[fd00:2::1]:9"} {
				_, err := net.DialTimeout("tcp", a, 100*time.Millisecond)
				if errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("a node that does not forward let a packet pass to %s", a)
				}
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

func TestPreferredSource(t *testing.T) {
	t.Parallel()
	nss := spaces(t, 2)
	wires(t, nss, [2]int{0, 1})
	route := via("192.168.2.2/32", "10.0.0.1")
	route.Src = netip.MustParseAddr("192.168.1.1")
	configure(t, nss,
		topology.PlannedNode{
			Interfaces: []topology.Interface{{Name: "lo", Addresses: prefixes("192.168.1.1/32")}, {Name: "eth1", Addresses: prefixes("10.0.0.0/31")}},
			Routes:     []topology.Route{route},
		},
		topology.PlannedNode{Interfaces: []topology.Interface{{Name: "eth0", Addresses: prefixes("10.0.0.1/31")}}})
	if err := nss[0].Do(func() error {
		c, err := net.Dial("udp", "192.168.2.2:9")
		if err != nil {
			return err
		}
		defer c.Close()
		if got := c.LocalAddr().(*net.UDPAddr).IP.String(); got != "192.168.1.1" {
			t.Errorf("source %s", got)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestBridgeForwardsFromTheFirstFrame(t *testing.T) {
	t.Parallel()
	nss := spaces(t, 4) // 0 is the switch
	wires(t, nss, [2]int{0, 1}, [2]int{0, 2}, [2]int{0, 3})
	host := func(n int) topology.PlannedNode {
		return topology.PlannedNode{Interfaces: []topology.Interface{{
			Name: "eth0", Addresses: prefixes(fmt.Sprintf("10.0.0.%d/24", n), fmt.Sprintf("fd00::%d/64", n)),
		}}}
	}
	configure(t, nss,
		topology.PlannedNode{Bridge: true, Interfaces: []topology.Interface{{Name: "eth1"}, {Name: "eth2"}, {Name: "eth3"}}},
		host(1), host(2), host(3))
	reach(t, nss[1], nss[2], "10.0.0.2")
	reach(t, nss[1], nss[2], "fd00::2")
	reach(t, nss[3], nss[1], "fd00::1")
	reach(t, nss[3], nss[1], "10.0.0.1")
	if err := nss[0].Do(func() error {
		addrs, err := net.InterfaceAddrs()
		for _, a := range addrs {
			if ip := a.(*net.IPNet).IP; !ip.IsLoopback() {
				t.Errorf("the switch has address %v", ip)
			}
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

func TestConfigureNamesWhatFailed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		node topology.PlannedNode
		want error
	}{
		"unreachable gateway": {topology.PlannedNode{Routes: []topology.Route{via("10.9.0.0/16", "10.0.0.1")}}, unix.ENETUNREACH},
		"address twice": {topology.PlannedNode{Interfaces: []topology.Interface{
			{Name: "lo", Addresses: prefixes("10.0.0.1/32", "10.0.0.1/32")},
		}}, unix.EEXIST},
	} {
		if err := Configure(spaces(t, 1)[0], tt.node); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	nss := spaces(t, 1)
	if err := Configure(nss[0], topology.PlannedNode{Interfaces: []topology.Interface{{Name: "eth9"}}}); err == nil {
		t.Error("a missing interface is no error")
	}
	nss[0].Close()
	if err := Configure(nss[0], topology.PlannedNode{}); !errors.Is(err, netns.ErrClosed) {
		t.Errorf("closed namespace: %v", err)
	}
}
