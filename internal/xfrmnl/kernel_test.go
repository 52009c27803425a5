package xfrmnl

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/internal/rootless"
)

func TestMain(m *testing.M) {
	if err := rootless.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "xfrmnl: tests need network namespaces:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// namespace is a new one, with a socket in it.
func namespace(t *testing.T) (*netns.Namespace, *Conn) {
	t.Helper()
	nss, err := netns.New(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nss[0].Close() })
	var c *Conn
	err = nss[0].Do(func() (err error) { c, err = Dial(); return err })
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		t.Skip("the kernel has no CONFIG_XFRM_USER")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return nss[0], c
}

// TestPoliciesInTheKernel needs no ESP.
func TestPoliciesInTheKernel(t *testing.T) {
	t.Parallel()
	ns, c := namespace(t)
	h, err := ns.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	p := &Policy{
		Src: netip.MustParsePrefix("10.1.0.0/16"), Dst: netip.MustParsePrefix("10.2.0.0/16"), Hook: Outgoing, Priority: 5,
		OuterSrc: netip.MustParseAddr("192.0.2.1"), OuterDst: netip.MustParseAddr("192.0.2.2"), ReqID: 1,
	}
	list := func() []netlink.XfrmPolicy {
		t.Helper()
		all, err := h.XfrmPolicyList(netlink.FAMILY_ALL)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	if err := c.AddPolicy(p); err != nil {
		t.Fatal(err)
	}
	if err := c.AddPolicy(p); !errors.Is(err, unix.EEXIST) {
		t.Error(err)
	}
	p.SPI = 0x1234
	if err := c.SetPolicy(p); err != nil {
		t.Fatal(err)
	}
	all := list()
	if len(all) != 1 || len(all[0].Tmpls) != 1 || all[0].Tmpls[0].Spi != 0x1234 || all[0].Tmpls[0].Reqid != 1 || all[0].Priority != 5 ||
		all[0].Src.String() != "10.1.0.0/16" || all[0].Dst.String() != "10.2.0.0/16" || all[0].Dir != netlink.XFRM_DIR_OUT {
		t.Errorf("%+v", all)
	}
	if err := c.DeletePolicy(p); err != nil {
		t.Error(err)
	}
	if err := c.DeletePolicy(p); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
	if all := list(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

// TestAcquire sends a packet that a policy protects and no SA is for. It needs no ESP.
func TestAcquire(t *testing.T) {
	t.Parallel()
	ns, c := namespace(t)
	var m *Monitor
	if err := ns.Do(func() (err error) { m, err = Watch(); return err }); err != nil {
		t.Fatal(err)
	}
	h, err := ns.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a"}, PeerName: "b"}
	if err := h.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		l, err := h.LinkByName(name)
		if err == nil {
			err = h.LinkSetUp(l)
		}
		if err == nil && name == "a" {
			addr, _ := netlink.ParseAddr("192.0.2.1/24")
			err = h.AddrAdd(l, addr)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	p := &Policy{
		Src: netip.MustParsePrefix("0.0.0.0/0"), Dst: netip.MustParsePrefix("192.0.2.9/32"), Hook: Outgoing,
		OuterSrc: netip.MustParseAddr("192.0.2.1"), OuterDst: netip.MustParseAddr("192.0.2.2"), ReqID: 99,
	}
	if err := c.AddPolicy(p); err != nil {
		t.Fatal(err)
	}
	if err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{192, 0, 2, 9}})
	}); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(2*time.Minute, func() { m.Close() })
	defer timer.Stop()
	got, err := m.Next()
	if a, ok := got.(Acquire); err != nil || !ok || a.ReqID != 99 || a.Dst != p.OuterDst || a.Src != p.OuterSrc || a.Policy == 0 {
		t.Errorf("%+v %v", got, err)
	}
	m.Close()
	if _, err := m.Next(); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

// TestSAInTheKernel needs ESP: natively, or in a guest kernel.
func TestSAInTheKernel(t *testing.T) {
	t.Parallel()
	_, c := namespace(t)
	directions, err := c.Directions()
	if err != nil {
		t.Fatal(err)
	}
	t.Log("directions:", directions)
	for _, v6 := range []bool{false, true} {
		sa := testSA(v6)
		sa.Out = 0
		if !directions {
			sa.Direction = Undirected
		}
		err := c.AddSA(sa)
		if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ENOSYS) {
			t.Skipf("the kernel has no ESP (go test -exec 'pqlab vm --' has): %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddSA(sa); !errors.Is(err, unix.EEXIST) {
			t.Error(err)
		}
		s, err := c.GetSA(sa.Dst, sa.SPI)
		want := State{
			Src: sa.Src, Dst: sa.Dst, SPI: sa.SPI, ReqID: 7, Direction: sa.Direction, UDP: 4500, IfID: 9, In: sa.In, Window: 4096, Soft: sa.Soft, Hard: sa.Hard,
		}
		if err != nil || s != want {
			t.Errorf("%+v %v", s, err)
		}
		if err := c.DeleteSA(sa.Dst, sa.SPI); err != nil {
			t.Error(err)
		}
		if err := c.DeleteSA(sa.Dst, sa.SPI); !errors.Is(err, unix.ESRCH) {
			t.Error(err)
		}
		if _, err := c.GetSA(sa.Dst, sa.SPI); !errors.Is(err, unix.ESRCH) {
			t.Error(err)
		}

		sa.SPI++
		sa.Window, sa.In, sa.Out = 0, 0, 1<<32-2
		if directions {
			sa.Direction = Out
		}
		if err := c.AddSA(sa); err != nil {
			t.Fatal(err)
		}
		if s, err := c.GetSA(sa.Dst, sa.SPI); err != nil || s.Out != 1<<32-2 {
			t.Errorf("%+v %v", s, err)
		}
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	_, c := namespace(t)
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	if _, err := c.GetSA(netip.MustParseAddr("192.0.2.1"), 256); !errors.Is(err, unix.EBADF) {
		t.Error(err)
	}
}
