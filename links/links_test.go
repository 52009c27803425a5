package links

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pqlab/internal/hygiene"
	"pqlab/internal/netns"
	"pqlab/internal/rootless"
	"pqlab/topology"
)

func TestMain(m *testing.M) {
	if err := rootless.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "tests that need namespaces will be skipped:", err)
	}
	os.Exit(hygiene.Tidy(m.Run))
}

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

func planned(name string) topology.PlannedLink {
	return topology.PlannedLink{Link: topology.Link{
		Name: name, Kind: topology.Ethernet, MTU: 1500,
		A: topology.End{Node: "a", Interface: "eth0"},
		B: topology.End{Node: "b", Interface: "eth7"},
	}}
}

// interfaces names all interfaces of a namespace but lo.
func interfaces(t testing.TB, ns *netns.Namespace) []string {
	t.Helper()
	h, err := ns.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	all, err := h.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range all {
		if l.Attrs().Name != "lo" {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}

// without is a kernel that lacks what is named.
func without(names ...string) kernel {
	has := func(what, option string) func() error {
		return func() error {
			if slices.Contains(names, what) {
				return &MissingError{what, option}
			}
			return nil
		}
	}
	return kernel{
		tbf: has("tbf", "CONFIG_NET_SCH_TBF"), netem: has("netem", "CONFIG_NET_SCH_NETEM"), seeds: func() bool { return true },
		tap: has("TAP", "CONFIG_TUN"),
	}
}

// only shapes by one discipline.
func only(d discipline) Shaper {
	return queueing{d.Name(), []discipline{d}, wired{without("TAP"), nil}}
}

func TestMakeAndClose(t *testing.T) {
	host, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	nss := spaces(t, 2)
	link := planned("a-b")
	link.MTU = 9000
	made, err := Make(link, nss[0], nss[1], none{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"eth0", "eth7"} {
		h, err := nss[i].Netlink()
		if err != nil {
			t.Fatal(err)
		}
		l, err := h.LinkByName(want)
		if err != nil {
			t.Fatal(err)
		}
		if l.Attrs().MTU != 9000 || l.Attrs().Flags&net.FlagUp == 0 || l.Type() != "veth" {
			t.Errorf("%s: %s, MTU %d, flags %v", want, l.Type(), l.Attrs().MTU, l.Attrs().Flags)
		}
		if l.Attrs().OperState != netlink.OperUp {
			t.Errorf("%s is %v", want, l.Attrs().OperState)
		}
	}
	if made.State().Shaper != "none" || made.Ignored != nil {
		t.Errorf("unshaped link without needs: %+v", made)
	}
	for range 2 {
		if err := made.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, ns := range nss {
		if left := interfaces(t, ns); left != nil {
			t.Errorf("left: %v", left)
		}
	}
	if now, err := net.Interfaces(); err != nil || len(now) != len(host) {
		t.Errorf("the host had %d interfaces and has %d (%v)", len(host), len(now), err)
	}
	nss[0].Close()
	if err := made.Close(); err != nil {
		t.Errorf("Close after the node's: %v", err)
	}
}

// A name that is taken in b, or a filter that the kernel refuses, must leave a as it was.
func TestMakeLeavesNothingOnError(t *testing.T) {
	nss := spaces(t, 3)
	first, second := planned("first"), planned("second")
	if _, err := Make(first, nss[0], nss[1], none{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Make(second, nss[2], nss[1], none{}); !errors.Is(err, unix.EEXIST) {
		t.Errorf("name taken in b: %v", err)
	}
	refused := errors.New("refused")
	second.B.Interface = "eth8"
	for fail := 1; fail <= 2; fail++ {
		calls := 0
		_, err := newVeth(second, nss[2], nss[1], func(int, end) error {
			if calls++; calls == fail {
				return refused
			}
			return nil
		})
		if !errors.Is(err, refused) {
			t.Errorf("shaping fails at end %d: %v", fail, err)
		}
	}
	if left := interfaces(t, nss[2]); left != nil {
		t.Errorf("left: %v", left)
	}
	if _, err := Make(second, nss[2], nss[1], none{}); err != nil {
		t.Errorf("after the failures: %v", err)
	}
	nss[1].Close()
	if _, err := Make(planned("third"), nss[2], nss[1], none{}); !errors.Is(err, netns.ErrClosed) {
		t.Errorf("closed namespace: %v", err)
	}
}

func TestTBFIsWhatWasAskedFor(t *testing.T) {
	if err := ProbeTBF(); err != nil {
		t.Skip(err)
	}
	for _, rate := range []topology.Rate{8e3, 1e6, 10e6, 1e9, 25e9, 1 << 35, 100e9, 400e9} {
		t.Run(fmt.Sprint(uint64(rate)), func(t *testing.T) {
			t.Parallel()
			nss := spaces(t, 2)
			link := planned("a-b")
			link.Rate = rate
			made, err := Make(link, nss[0], nss[1], only(tbf{without()}))
			if err != nil {
				t.Fatal(err)
			}
			if got := made.State().Shaper; got != "tbf" {
				t.Errorf("shaper %q", got)
			}
			for i, name := range []string{"eth0", "eth7"} {
				h, err := nss[i].Netlink()
				if err != nil {
					t.Fatal(err)
				}
				l, err := h.LinkByName(name)
				if err != nil {
					t.Fatal(err)
				}
				qdiscs, err := h.QdiscList(l)
				if err != nil || len(qdiscs) != 1 {
					t.Fatalf("%s: %v, %v", name, qdiscs, err)
				}
				got, ok := qdiscs[0].(*netlink.Tbf)
				if !ok {
					t.Fatalf("%s: %T", name, qdiscs[0])
				}
				if got.Rate != uint64(rate)/8 {
					t.Errorf("%s: %d B/s, want %d", name, got.Rate, rate/8)
				}
				burst := float64(got.Buffer) * tick.Seconds() * float64(rate) / 8
				want := max(float64(rate)/8/250, 4000)
				if burst < want || burst > want*1.01+1 {
					t.Errorf("%s: burst %.0f B, want %.0f", name, burst, want)
				}
				if queue := float64(got.Limit) - burst; queue < float64(rate)/8*0.02*0.99-2 || queue > float64(rate)/8*0.02*1.01+2 {
					t.Errorf("%s: queue of %.0f B", name, queue)
				}
			}
		})
	}
}

func TestChoose(t *testing.T) {
	bare, rated, wifi := planned("bare"), planned("rated"), planned("wifi0")
	rated.Rate = 10e6
	wifi.Rate, wifi.Delay, wifi.Loss = 10e6, 2*time.Millisecond, 0.01
	jitter, slow := planned("jitter0"), planned("slow")
	jitter.Jitter = time.Millisecond
	slow.Delay, slow.Jitter = time.Minute, 2200*time.Millisecond
	traced, wireless := planned("traced"), planned("wireless")
	traced.RateTrace = []topology.RateStep{{Length: time.Second, Rate: 1e6}}
	wireless.WiFi = &topology.Station{Profile: "iot-n-1x1-20", Distance: 5}
	const (
		noTBF, noNetem = "this kernel has no tbf (CONFIG_NET_SCH_TBF)", "this kernel has no netem (CONFIG_NET_SCH_NETEM)"
		noTAP          = "this kernel has no TAP (CONFIG_TUN)"
	)
	instead := []string{"wire"}

	tests := []struct {
		name   string
		links  []topology.PlannedLink
		want   string
		kernel kernel
		shaper string
		lacks  []LinkNeeds
	}{
		{name: "nothing needed, nothing there", links: []topology.PlannedLink{bare}, kernel: without("tbf", "netem"), shaper: "auto"},
		{name: "rate", links: []topology.PlannedLink{bare, rated}, kernel: without("netem"), shaper: "auto"},
		{name: "tbf by name", links: []topology.PlannedLink{rated}, want: "tbf", kernel: without("netem"), shaper: "tbf"},
		{name: "none takes all", links: []topology.PlannedLink{rated, wifi}, want: "none", kernel: without("tbf", "netem"), shaper: "none"},
		{name: "netem does all", links: []topology.PlannedLink{bare, rated, wifi, jitter}, kernel: without(), shaper: "auto"},
		{name: "netem by name", links: []topology.PlannedLink{bare, rated, wifi, jitter}, want: "netem", kernel: without(), shaper: "netem"},
		{name: "nothing needed of netem", links: []topology.PlannedLink{bare}, want: "netem", kernel: without("tbf", "netem"), shaper: "netem"},
		{name: "wire does all", links: []topology.PlannedLink{bare, rated, wifi, jitter, slow, traced}, want: "wire", kernel: without("tbf", "netem"), shaper: "wire"},
		{name: "where there is no netem", links: []topology.PlannedLink{bare, rated, wifi, jitter, slow, traced}, kernel: without("tbf", "netem"), shaper: "auto"},
		{name: "no tbf", links: []topology.PlannedLink{bare, rated}, kernel: without("tbf", "netem", "TAP"), lacks: []LinkNeeds{
			{"rated", []string{fmt.Sprint("rate ", rated.Rate)}, []string{noNetem, noTBF, noTAP}, nil},
		}},
		{name: "no netem, each link told", links: []topology.PlannedLink{bare, wifi, rated, jitter}, want: "auto", kernel: without("netem", "TAP"), lacks: []LinkNeeds{
			{"wifi0", []string{"delay 2ms", "loss 1%"}, []string{noNetem, noTAP}, nil},
			{"jitter0", []string{"jitter 1ms"}, []string{noNetem, noTAP}, nil},
		}},
		{name: "netem is there but not asked for", links: []topology.PlannedLink{jitter}, want: "tbf", kernel: without(), lacks: []LinkNeeds{
			{"jitter0", []string{"jitter 1ms"}, []string{"tbf gives a rate and nothing else"}, instead},
		}},
		{name: "neither", links: []topology.PlannedLink{wifi}, want: "netem", kernel: without("tbf", "netem"), lacks: []LinkNeeds{
			{"wifi0", []string{fmt.Sprint("rate ", wifi.Rate), "delay 2ms", "loss 1%"}, []string{noNetem, noTBF}, instead},
		}},
		{name: "more than netem can", links: []topology.PlannedLink{slow}, want: "netem", kernel: without(), lacks: []LinkNeeds{
			{"slow", []string{"jitter 2.2s"}, []string{"netem varies a delay by 2.1 s at most"}, instead},
		}},
		{name: "no trace in netem", links: []topology.PlannedLink{traced}, want: "netem", kernel: without("TAP"), lacks: []LinkNeeds{
			{"traced", traced.Scheduled(), []string{queuesAlone}, nil},
		}},
		{name: "no airtime in queues", links: []topology.PlannedLink{wireless}, want: "netem", kernel: without(), lacks: []LinkNeeds{
			{"wireless", []string{"airtime of " + wireless.WiFi.String()}, []string{"the kernel's queues know no airtime"}, instead},
		}},
		{name: "airtime", links: []topology.PlannedLink{wireless}, kernel: without(), shaper: "auto"},
		{name: "no TAP", links: []topology.PlannedLink{bare}, want: "wire", kernel: without("TAP"), lacks: []LinkNeeds{
			{"bare", []string{"TAP interfaces"}, []string{noTAP}, nil},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := choose(tt.links, tt.want, tt.kernel)
			if tt.lacks == nil {
				if err != nil || got.Name() != tt.shaper {
					t.Errorf("got %v, %v", got, err)
				}
				return
			}
			var unsupported *UnsupportedError
			if !errors.As(err, &unsupported) || !slices.EqualFunc(unsupported.Links, tt.lacks, func(a, b LinkNeeds) bool {
				return a.Link == b.Link && slices.Equal(a.Needs, b.Needs) && slices.Equal(a.Missing, b.Missing) && slices.Equal(a.Instead, b.Instead)
			}) {
				t.Errorf("got %v\nwant %v", err, tt.lacks)
			}
		})
	}
	if _, err := Choose(nil, "nteem"); !errors.Is(err, ErrUnknownShaper) {
		t.Errorf("unknown shaper: %v", err)
	}
	for _, name := range Names() { // nothing needed of what is not there
		if _, err := Choose(nil, name); err != nil {
			t.Error(err)
		}
	}
}

// The message is part of what users are promised.
func ExampleUnsupportedError() {
	wifi := planned("wifi0")
	wifi.Delay, wifi.Loss = 2*time.Millisecond, 0.01
	_, err := choose([]topology.PlannedLink{wifi}, "netem", without("netem"))
	fmt.Println(err)
	// Output: link wifi0: needs delay 2ms and loss 1%; this kernel has no netem (CONFIG_NET_SCH_NETEM); --shaper=wire can; --shaper=none runs it unshaped
}

// What a link that is up is told to do can be done with it.
func ExampleUnsupportedError_up() {
	err := &UnsupportedError{Up: true, Links: []LinkNeeds{
		{Link: "wifi0", Needs: []string{"delay 2ms"}, Missing: []string{"this kernel has no netem (CONFIG_NET_SCH_NETEM)"}, Instead: []string{"wire"}},
		{Link: "wifi1", Needs: []string{"loss 1%"}, Missing: []string{"airtime makes its rate, loss and jitter"}},
	}}
	fmt.Println(err)
	// Output:
	// link wifi0: needs delay 2ms; this kernel has no netem (CONFIG_NET_SCH_NETEM); a link that is up keeps its shaper: take the lab down and up again with --shaper=wire (pqlab down LAB; pqlab up ... --shaper wire)
	// link wifi1: needs loss 1%; airtime makes its rate, loss and jitter
}

// A link that is up is told why it cannot change, what a wire lacks to do it, and to take one all the same.
func TestSetTellsTheWayOut(t *testing.T) {
	for name, tt := range map[string]struct {
		k       kernel
		next    topology.Shape
		missing []string
	}{
		"wire":         {without("netem"), topology.Shape{Delay: time.Millisecond}, []string{"this kernel has no netem (CONFIG_NET_SCH_NETEM)"}},
		"no wire":      {without("netem", "TAP"), topology.Shape{Delay: time.Millisecond}, []string{"this kernel has no netem (CONFIG_NET_SCH_NETEM)", "this kernel has no TAP (CONFIG_TUN)"}},
		"queue":        {without("netem"), topology.Shape{Rate: 1e6, Queue: topology.Queue{Kind: topology.CoDel}}, []string{queuesAlone}},
		"tbf, no wire": {without("TAP"), topology.Shape{Outages: []topology.Outage{{Length: 1}}}, []string{queuesAlone, "this kernel has no TAP (CONFIG_TUN)"}},
	} {
		shaper := shapers(tt.k, nil)[0]
		made, _, _ := pairOf(t, planned("a-b"), shaper)
		err := made.Set(func([2]topology.Shape) ([2]topology.Shape, error) { return [2]topology.Shape{tt.next, tt.next}, nil })
		var lacks *UnsupportedError
		if !errors.As(err, &lacks) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if l := lacks.Links[0]; !lacks.Up || l.Link != "a-b" || !slices.Equal(l.Missing, tt.missing) || !slices.Equal(l.Instead, []string{"wire"}) {
			t.Errorf("%s: %+v", name, lacks)
		}
	}
}

// Make is given links one by one, and Choose may have seen others.
func TestMakeRefusesWhatTheShaperLacks(t *testing.T) {
	nss := spaces(t, 2)
	link := planned("a-b")
	link.Delay = time.Millisecond
	for _, s := range []Shaper{only(tbf{without()}), only(netem{without("netem")}), shapers(without("netem", "TAP"), nil)[0], wired{without("TAP"), nil}} {
		var unsupported *UnsupportedError
		if _, err := Make(link, nss[0], nss[1], s); !errors.As(err, &unsupported) {
			t.Errorf("%s: %v", s.Name(), err)
		}
	}
	if left := interfaces(t, nss[0]); left != nil {
		t.Errorf("left: %v", left)
	}
	link.Rate = 10e6
	made, err := Make(link, nss[0], nss[1], none{})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{fmt.Sprint("rate ", link.Rate), "delay 1ms"}; made.State().Shaper != "none" || !slices.Equal(made.Ignored, want) {
		t.Errorf("unshaped by wish: %q, ignored %q", made.State().Shaper, made.Ignored)
	}
}

func TestProbeLeavesNothing(t *testing.T) {
	spaces(t, 1)
	ProbeTBF()
	before, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		var missing *MissingError
		for _, err := range []error{ProbeTBF(), ProbeNetem()} {
			if err != nil && !errors.As(err, &missing) {
				t.Error(err)
			}
		}
	}
	after, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	if len(after) > len(before) {
		t.Errorf("%d descriptors before, %d after", len(before), len(after))
	}
}
