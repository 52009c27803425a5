package bench

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"pqlab/bench/crypto"
	"pqlab/lab"
	"pqlab/probe"
	"pqlab/topology"
)

// needESP skips where the kernel carries no tunnel.
func needESP(t *testing.T) {
	t.Helper()
	if _, err := probe.Dataplane(probe.XFRM); errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("%v (go test -exec 'pqlab vm --' has it)", err)
	} else if err != nil {
		t.Fatal(err)
	}
	if _, err := find("ip", "/usr/sbin/ip"); err != nil {
		t.Skip(err)
	}
}

// By hand there is the same tunnel as pqlab's: each end protects towards the other what the other demands, and both have the
// same two SAs.
func TestByHand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		encapsulation, family string
		iface                 bool
		encap                 string
	}{
		{"udp", "ipv4", true, " encap espinudp 4500 4500 0.0.0.0 "},
		{"udp", "ipv6", false, " encap espinudp 4500 4500 :: "},
		{"esp", "ipv4", false, ""},
	} {
		p, err := topology.New("pair").Host("a").Host("b").Fibre("a", "b").
			Tunnel("ab", "a", "b", topology.Encapsulation(c.encapsulation), topology.Family(c.family)).Plan()
		if err != nil {
			t.Fatal(err)
		}
		tun := p.Tunnels[0]
		keys := [2][36]byte{{1}, {2}}
		var states, policies, others [2][]string
		for end := range 2 {
			for line := range strings.Lines(byHand(tun, c.iface, end == 0, keys)) {
				switch {
				case strings.HasPrefix(line, "xfrm state"):
					states[end] = append(states[end], line)
				case strings.HasPrefix(line, "xfrm policy"):
					policies[end] = append(policies[end], line)
				default:
					others[end] = append(others[end], line)
				}
				if strings.HasPrefix(line, "xfrm") && strings.Contains(line, " if_id 1") != c.iface {
					t.Errorf("interface %v: %s", c.iface, line)
				}
			}
		}
		if len(states[0]) != 2 || !slices.Equal(states[0], states[1]) || strings.Contains(states[0][0], "0x01") == strings.Contains(states[0][1], "0x01") {
			t.Errorf("SAs %q and %q", states[0], states[1])
		}
		for _, s := range states[0] {
			if !strings.Contains(s, "replay-window 4096 flag af-unspec esn") || !strings.Contains(s, "aead rfc4106(gcm(aes)) 0x0") ||
				!strings.Contains(s, c.encap) || (c.encap == "") == strings.Contains(s, "encap") || !strings.HasSuffix(s, " 128\n") {
				t.Errorf("SA %q", s)
			}
		}
		if len(policies[0]) != 6 || (len(others[0]) > 0) != c.iface { // both families, each in three places
			t.Errorf("policies %q, others %q", policies[0], others[0])
		}
		for end := range 2 {
			for _, p := range policies[end] {
				if there := strings.Replace(p, "dir out", "dir in", 1); there != p && !slices.Contains(policies[1-end], there) {
					t.Errorf("nothing demands what %q does", p)
				}
			}
		}
	}
	if _, err := find("/nowhere/ip", "no-such-ip"); err == nil || !strings.Contains(err.Error(), "iproute2") {
		t.Errorf("%v", err)
	}
}

// On the kernel's dataplane the tunnel is measured beside one that was made by hand.
func TestMeasureByHand(t *testing.T) {
	needESP(t)
	owner.Check(t)
	got, err := MeasureTunnel(t.Context(), []int{1}, 2, 200*time.Millisecond, lab.Options{Dataplane: probe.XFRM}, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	if got.HandMadeMissing != "" || len(got.Runs) != 2 || len(got.Medians) != 1 || !strings.HasPrefix(got.Dataplane, "xfrm/") {
		t.Errorf("%+v", got)
	}
	for _, r := range append(got.Medians, got.Runs...) {
		if r.Plain <= 0 || r.Encrypted <= 0 || r.HandMade <= 0 || r.OfPlain <= 0 || r.OfHandMade <= 0 {
			t.Errorf("%+v", r)
		}
	}
}

// What does not pass the tunnel made by hand is no figure of it.
func TestNotByHand(t *testing.T) {
	needESP(t)
	owner.Check(t)
	w, err := open(t.Context(), handMade, []int{1}, lab.Options{}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	if rate, err := w.send(t.Context(), 0, 50*time.Millisecond); err != nil || rate <= 0 {
		t.Fatalf("%v bit/s, %v", rate, err)
	}
	for _, name := range []string{"a", "b"} {
		h, err := w.lab.Node(name).Namespace().Netlink()
		if err != nil {
			t.Fatal(err)
		}
		if err := h.XfrmPolicyFlush(); err != nil {
			t.Fatal(err)
		}
	}
	if rate, err := w.send(t.Context(), 0, 50*time.Millisecond); err == nil {
		t.Errorf("%v bit/s in the clear", rate)
	}
}

// What iproute2 refuses is told, and is no failure of the measurement.
func TestHandRefused(t *testing.T) {
	owner.Check(t)
	if _, err := find("ip", "/usr/sbin/ip"); err != nil {
		t.Skip(err)
	}
	p, err := topology.New("pair").Host("a").Host("b").Fibre("a", "b").Tunnel("ab", "a", "b").Plan()
	if err != nil {
		t.Fatal(err)
	}
	tun := p.Tunnels[0]
	p.Tunnels = nil
	l, err := lab.Up(t.Context(), p, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Down(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	tun.OuterA = netip.MustParseAddr("192.0.2.77") // not the node's: its socket cannot be bound
	var missing *handError
	if _, err := makeByHand(t.Context(), l, tun, false); !errors.As(err, &missing) {
		t.Errorf("%v", err)
	}
	h, err := l.Node("a").Namespace().Netlink()
	if err != nil {
		t.Fatal(err)
	}
	if states, err := h.XfrmStateList(netlink.FAMILY_ALL); err != nil || len(states) > 0 {
		t.Errorf("%d SAs are left, %v", len(states), err)
	}
}

func TestMeasureSAs(t *testing.T) {
	owner.Check(t)
	for _, plane := range []string{probe.Gateway, probe.XFRM} {
		t.Run(plane, func(t *testing.T) {
			if _, err := probe.Dataplane(plane); errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			got, err := MeasureSAs(t.Context(), plane, 3, 20*time.Millisecond, func(string) {})
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(got.Runs)
			if !strings.HasPrefix(got.Dataplane, plane+"/") || len(got.Runs) != 3 || got.Runs[0] <= 0 || got.Median != got.Runs[1] {
				t.Errorf("%+v", got)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := MeasureSAs(ctx, "", 1, time.Minute, func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := MeasureSAs(t.Context(), "ebpf", 1, time.Second, func(string) {}); err == nil {
		t.Error("there is no such dataplane")
	}
}

// Where an emulator plays the processor it is said.
func TestCaveat(t *testing.T) {
	t.Parallel()
	emulated := strings.Contains(crypto.CPUModel(), "QEMU TCG") || strings.Contains(crypto.CPUModel(), "implementer 0x00")
	if (caveat() != "") != emulated {
		t.Errorf("%q on %s", caveat(), crypto.CPUModel())
	}
}
