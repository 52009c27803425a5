package testlab

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/vishvananda/netlink"

	"pqlab/lab"
	"pqlab/probe"
	"pqlab/topology"
)

func TestMain(m *testing.M) { Main(m) }

// After a spec the kernel must have refused nothing where it carries the tunnels; what it counts beside a gateway is not
// the gateway's doing.
func TestRefusedNothing(t *testing.T) {
	if err := probe.XFRMPolicies(); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	RegisterTestingT(t)
	for _, plane := range []string{probe.Gateway, probe.XFRM} {
		t.Run(plane, func(t *testing.T) {
			plan, err := topology.New("x").Host("a").Host("b").Ethernet("a", "b").Tunnel("ab", "a", "b").Plan()
			if err != nil {
				t.Fatal(err)
			}
			l, err := lab.Up(t.Context(), plan, lab.Options{Dataplane: plane})
			if errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := l.Down(context.Background()); err != nil {
					t.Error(err)
				}
				if told := InterceptGomegaFailures(func() { refusedNothing(l) }); len(told) > 0 { // as where a spec has done it
					t.Errorf("the lab is down: %q", told)
				}
			}()
			if told := InterceptGomegaFailures(func() { refusedNothing(l) }); len(told) > 0 {
				t.Errorf("nothing was refused: %q", told)
			}
			refuse(t, l.Node("a"), l.Node("b"))
			told := strings.Join(InterceptGomegaFailures(func() { refusedNothing(l) }), "\n")
			if (told != "") != (plane == probe.XFRM) {
				t.Errorf("a packet was refused: %q", told)
			}
			if told != "" && (!strings.Contains(told, "a") || !strings.Contains(told, "XfrmOutPolBlock")) {
				t.Error(told)
			}
		})
	}
}

// refuse has the kernel's IPsec refuse a packet from one node to another.
func refuse(t *testing.T, from, to *lab.Node) {
	t.Helper()
	i := slices.IndexFunc(to.Plan.Interfaces, func(i topology.Interface) bool { return i.Link != "" })
	at := net.IP(to.Plan.Interfaces[i].Addresses[0].Addr().AsSlice())
	only := &net.IPNet{IP: at, Mask: net.CIDRMask(8*len(at), 8*len(at))}
	all := &net.IPNet{IP: make(net.IP, len(at)), Mask: net.CIDRMask(0, 8*len(at))}
	h, err := from.Namespace().Netlink()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.XfrmPolicyAdd(&netlink.XfrmPolicy{Src: all, Dst: only, Dir: netlink.XFRM_DIR_OUT, Action: netlink.XFRM_POLICY_BLOCK}); err != nil {
		t.Fatal(err)
	}
	if err := from.Namespace().Do(func() error {
		c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: at, Port: 9})
		if err != nil {
			return nil
		}
		defer c.Close()
		if _, err := c.Write([]byte("refused")); err == nil {
			return errors.New("the packet was not refused")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
