package links

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"net"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/links/medium"
	"pqlab/links/wire"
	"pqlab/topology"
)

// pairOf makes a link with an address at each end, and nothing on it but what a test sends: no IPv6, no ARP.
func pairOf(t testing.TB, link topology.PlannedLink, shaper Shaper) (made *Link, a, b *netns.Namespace) {
	t.Helper()
	nss := spaces(t, 2)
	for _, ns := range nss {
		if err := ns.Set(netns.Sysctl{Key: "net/ipv6/conf/default/disable_ipv6", Value: "1"}); err != nil {
			t.Fatal(err)
		}
	}
	made, err := Make(link, nss[0], nss[1], shaper)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { made.Close() })
	var hs [2]*netlink.Handle
	var ls [2]netlink.Link
	for i, name := range []string{"eth0", "eth7"} {
		if hs[i], err = nss[i].Netlink(); err != nil {
			t.Fatal(err)
		}
		if ls[i], err = hs[i].LinkByName(name); err != nil {
			t.Fatal(err)
		}
		if err := hs[i].AddrAdd(ls[i], &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 0, 0, byte(i+1)), Mask: net.CIDRMask(24, 32)}}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range hs {
		if err := hs[i].NeighAdd(&netlink.Neigh{
			LinkIndex: ls[i].Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.IPv4(10, 0, 0, byte(2-i)), HardwareAddr: ls[1-i].Attrs().HardwareAddr,
		}); err != nil {
			t.Fatal(err)
		}
	}
	return made, nss[0], nss[1]
}

func shaped(s topology.Shape) topology.PlannedLink {
	link := planned("a-b")
	link.Shape, link.Seed = s, 7
	return link
}

// each runs a test with every shaper that can do all.
func each(t *testing.T, test func(t *testing.T, shaper Shaper)) {
	for _, name := range []string{"netem", "wire"} {
		t.Run(name, func(t *testing.T) { test(t, need(t, name)) })
	}
}

// need gives the shaper, where this machine has what it takes.
func need(t testing.TB, name string) Shaper {
	t.Helper()
	shaper, err := Choose(nil, name)
	if err != nil {
		t.Fatal(err)
	}
	probes := map[string][]func() error{"tbf": {ProbeTBF}, "netem": {ProbeTBF, ProbeNetem}, "wire": {wire.Probe}}
	for _, probe := range probes[name] {
		switch err := probe(); {
		case errors.Is(err, errors.ErrUnsupported):
			t.Skip(err, "; pqlab vm -- runs this in a kernel that has it")
		case errors.Is(err, unix.EPERM):
			t.Skip(err)
		case err != nil:
			t.Fatal(err)
		}
	}
	return shaper
}

// The bytes are those of struct tc_netem_qopt and its attributes (include/uapi/linux/pkt_sched.h), in little-endian.
func TestNetemOptions(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the bytes written here are little-endian")
	}
	head := func(limit, loss, gap, duplicate uint32) []byte {
		return slices.Concat(make([]byte, 4), le(limit), le(loss), le(gap), le(duplicate), make([]byte, 4))
	}
	attr := func(kind byte, payload ...byte) []byte {
		return append([]byte{byte(4 + len(payload)), byte((4 + len(payload)) >> 8), kind, 0}, payload...)
	}
	none := make([]byte, 8)
	none12 := make([]byte, 12)
	inOrder := slices.Concat(attr(6, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), attr(8, 0, 0, 0, 0, 0, 0, 0, 0x40))
	seed := attr(14, 8, 7, 6, 5, 4, 3, 2, 1)
	for name, tt := range map[string]struct {
		shape topology.Shape
		want  []byte
	}{
		"nothing": {topology.Shape{}, slices.Concat(head(1000, 0, 0, 0),
			attr(1, none12...), attr(3, none...), attr(4, none...), inOrder, attr(10, none...), attr(11, none...), seed)},
		"shares": {topology.Shape{Delay: 0x0102030405, Loss: 0.5, Duplication: 1, Reordering: 0.25, Corruption: 1.0 / (1 << 20), Unordered: true, Rate: 1e9},
			slices.Concat(head(1000, 0x7fffffff, 1, 0xffffffff),
				attr(1, none12...), attr(3, 0xff, 0xff, 0xff, 0x3f, 0, 0, 0, 0), attr(4, 0xff, 0x0f, 0, 0, 0, 0, 0, 0),
				attr(6, make([]byte, 16)...), attr(10, 5, 4, 3, 2, 1, 0, 0, 0), attr(11, none...), seed)},
		"Gilbert-Elliott": {topology.Shape{GilbertElliott: topology.GilbertElliott{P: 0.25, R: 0.5, Bad: 0.75, Good: 0.125}},
			slices.Concat(head(1000, 0, 0, 0), attr(1, none12...), attr(3, none...), attr(4, none...),
				attr(5, attr(2, 0, 0, 0, 0x40, 0, 0, 0, 0x80, 0xff, 0xff, 0xff, 0x3f, 0, 0, 0, 0x20)...),
				inOrder, attr(10, none...), attr(11, none...), seed)},
		"correlated loss": {topology.Shape{Loss: 0.25, LossCorrelation: 0.5},
			slices.Concat(head(1000, 0, 0, 0), attr(1, none12...), attr(3, none...), attr(4, none...),
				attr(5, attr(2, 0, 0, 0, 0x20, 0, 0, 0, 0x60, 0, 0, 0, 0, 0, 0, 0, 0)...),
				inOrder, attr(10, none...), attr(11, none...), seed)},
		"own table": {topology.Shape{Delay: 16, Jitter: 0x100, Table: []float64{10, 30}},
			slices.Concat(head(1000, 0, 0, 0), attr(1, none12...), attr(2, 0x00, 0xe0, 0x00, 0x20), attr(3, none...), attr(4, none...),
				inOrder, attr(10, 16, 0, 0, 0, 0, 0, 0, 0), attr(11, 0, 1, 0, 0, 0, 0, 0, 0), seed)},
	} {
		if got := netemOptions(tt.shape, newSpread(tt.shape), 1000, 0x0102030405060708); !bytes.Equal(got, tt.want) {
			t.Errorf("%s:\ngot  %x\nwant %x", name, got, tt.want)
		}
	}
	if got, want := fifoOptions(0x01020304), []byte{4, 3, 2, 1}; !bytes.Equal(got, want) {
		t.Errorf("fifo: %x, want %x", got, want)
	}
}

func le(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

// No share rounds to none, and none to more than all.
func TestShares(t *testing.T) {
	for _, tt := range []struct {
		p            float64
		share, below uint32
	}{
		{0, 0, 0}, {1e-12, 1, 0}, {0.5, 1<<31 - 1, 1 << 31}, {0.01, 42949672, 42949673}, {1 - 1e-12, math.MaxUint32, math.MaxUint32}, {1, math.MaxUint32, math.MaxUint32},
	} {
		if share(tt.p) != tt.share || below(tt.p) != tt.below {
			t.Errorf("%v: share %d, below %d; want %d, %d", tt.p, share(tt.p), below(tt.p), tt.share, tt.below)
		}
	}
}

// tabled is the kernel's arithmetic (tabledist in net/sched/sch_netem.c): what a table's entry adds to the delay.
func tabled(sigma int64, entry int16) int64 {
	x := sigma % scale * int64(entry)
	if x >= 0 {
		x += scale / 2
	} else {
		x -= scale / 2
	}
	return x/scale + sigma/scale*int64(entry)
}

func TestSpread(t *testing.T) {
	own := []float64{1, 1, 1, 1, 1, 1, 1, 1, 1, 1000} // farther than ±4 sigma are not in the table itself
	for _, tt := range []struct {
		distribution      string
		table             []float64
		least, q, m, most float64 // smallest, a quarter, median and largest, in standard deviations
	}{
		{"", nil, -3.67, -0.6745, 0, 3.67},
		{"normal", nil, -3.67, -0.6745, 0, 3.67},
		{"uniform", nil, -1.732, -0.866, 0, 1.732},
		// Pareto of shape 3: least 1, median 2^(1/3), a quarter (4/3)^(1/3); mean 1.5, standard deviation sqrt(3/4).
		{"pareto", nil, -0.577, -0.461, -0.277, 23},
		{"paretonormal", nil, -1.73, -0.484, -0.183, 22.7},
		{"", own, -0.333, -0.333, -0.333, 3},
		{"", []float64{-5, 5, 5, -5}, -1, -1, 0, 1},
	} {
		for _, jitter := range []time.Duration{time.Microsecond, 5 * time.Millisecond, 80 * time.Millisecond} {
			s := newSpread(topology.Shape{Jitter: jitter, Distribution: tt.distribution, Table: tt.table})
			if !s.fits() {
				t.Errorf("%s %v does not fit", tt.distribution, jitter)
			}
			var added []float64
			var mean, square float64
			for _, entry := range s.table {
				v := float64(tabled(s.sigma, entry)) / float64(jitter)
				added = append(added, v)
				mean += v / float64(len(s.table))
				square += v * v / float64(len(s.table))
			}
			slices.Sort(added)
			n := len(added)
			median := (added[(n-1)/2] + added[n/2]) / 2
			// A table has four digits.
			if math.Abs(mean) > 2e-3 || math.Abs(math.Sqrt(square)-1) > 3e-3 {
				t.Errorf("%s %v: mean %.4f, standard deviation %.4f", tt.distribution, jitter, mean, math.Sqrt(square))
			}
			near := func(got, want float64) bool { return math.Abs(got-want) <= 0.01+0.05*math.Abs(want) }
			if !near(added[0], tt.least) || !near(added[n/4], tt.q) || !near(median, tt.m) || !near(added[n-1], tt.most) || !near(s.most, max(-tt.least, tt.most)) {
				t.Errorf("%s %v: from %.3f over %.3f and %.3f to %.3f, most %.3f", tt.distribution, jitter, added[0], added[n/4], median, added[n-1], s.most)
			}
		}
	}
}

// The limit holds a full link of small packets.
func TestInFlight(t *testing.T) {
	for _, tt := range []struct {
		shape topology.Shape
		least float64
	}{
		{topology.Shape{Rate: topology.Gbit, Delay: 100 * time.Millisecond}, 1e9 / 8 / 100 * 0.27},
		{topology.Shape{Rate: topology.Gbit, Delay: 100 * time.Millisecond, Queue: topology.Queue{Time: time.Second}}, 1e9 / 8 / 100 * 1.2},
		{topology.Shape{Rate: topology.Gbit, Delay: 100 * time.Millisecond, Jitter: 50 * time.Millisecond}, 1e9 / 8 / 100 * (0.27 + 3.6*0.05)},
		{topology.Shape{Rate: 1000}, 1000},
		{topology.Shape{Delay: time.Second}, 4e6},
		{topology.Shape{Delay: time.Hour}, math.MaxUint32},
	} {
		if got := float64(inFlight(tt.shape, newSpread(tt.shape), 1500)); got < tt.least || got > 2*tt.least {
			t.Errorf("%v: %v, want at least %v", tt.shape, got, tt.least)
		}
	}
}

// holding reads what the kernel says of both ends.
func holding(t testing.TB, l *Link) (all [2]map[uint32][]byte) {
	t.Helper()
	for side, e := range l.body.(*pair).ends {
		options, err := readOptions(e.ns, e.index)
		if err != nil {
			t.Fatal(err)
		}
		delete(options, 0) // the default
		all[side] = options
	}
	return all
}

// After whatever went before, the kernel says of a link what it says of a fresh one, and that is what was asked for.
func TestNetemKeepsNothing(t *testing.T) {
	shaper := need(t, "netem")
	r := rand.New(rand.NewPCG(1, 2))
	some := func(f float64) float64 { return f * float64(r.IntN(2)) }
	random := func() topology.Shape {
		s := topology.Shape{
			Delay: time.Duration(1 + r.Int64N(1e9)), Loss: some(r.Float64()), Duplication: some(r.Float64()), Reordering: some(r.Float64()),
			Corruption: some(r.Float64()), Rate: topology.Rate(r.Uint64N(2) * r.Uint64N(1e12)),
		}
		if r.IntN(2) == 0 {
			s.Jitter, s.Unordered = s.Delay/2, r.IntN(2) == 0
			s.Distribution = []string{"", "uniform", "pareto"}[r.IntN(3)]
			if newSpread(s).sigma > math.MaxInt32 {
				s.Distribution = ""
			}
		}
		switch {
		case s.Loss > 0 && r.IntN(2) == 0:
			s.LossCorrelation = r.Float64()
		case r.IntN(3) == 0:
			s.Loss, s.GilbertElliott = 0, topology.GilbertElliott{P: r.Float64(), R: r.Float64(), Good: some(0.5)}
		}
		switch r.IntN(3) {
		case 0:
			s.Queue.Bytes = 2000 + r.Uint64N(1e6)
		case 1:
			s.Queue = topology.Queue{Kind: topology.DropTail, Time: time.Duration(1 + r.Int64N(int64(time.Second)))}
		}
		return s
	}
	changed, _, _ := pairOf(t, shaped(topology.Shape{Delay: time.Second}), shaper)
	for range 30 {
		want := random()
		if err := changed.Set(func([2]topology.Shape) ([2]topology.Shape, error) { return [2]topology.Shape{want, want}, nil }); err != nil {
			t.Fatal(err)
		}
		fresh, _, _ := pairOf(t, shaped(want), shaper)
		got := holding(t, changed)
		if fresh := holding(t, fresh); !reflect.DeepEqual(got, fresh) {
			t.Fatalf("%v:\nchanged %x\nfresh   %x", want, got, fresh)
		}
		for side := range got {
			attrs, err := netemAttributes(got[side][emulatorHandle])
			if err != nil {
				t.Fatal(err)
			}
			head := got[side][emulatorHandle]
			for name, pair := range map[string][2][]byte{
				"delay":       {attrs[netemLatency64], long(uint64(want.Delay))},
				"jitter":      {attrs[netemJitter64], long(uint64(newSpread(want).sigma))},
				"corruption":  {attrs[nl.TCA_NETEM_CORRUPT], words(share(want.Corruption), 0)},
				"reordering":  {attrs[nl.TCA_NETEM_REORDER], words(share(want.Reordering), 0)},
				"correlation": {attrs[nl.TCA_NETEM_CORR], words(0, 0, 0)},
				"limit":       {head[4:8], words(inFlight(want, newSpread(want), 1500))},
				"duplication": {head[16:20], words(share(want.Duplication))},
				"queue":       {got[side][backlogHandle], words(uint32(medium.Room(want, 1500)))},
			} {
				if !bytes.Equal(pair[0], pair[1]) {
					t.Errorf("%v: %s is %x, want %x", want, name, pair[0], pair[1])
				}
			}
			chained := want.LossCorrelation > 0 || want.GilbertElliott != topology.GilbertElliott{}
			if got := binary.NativeEndian.Uint32(head[8:]); chained != (len(attrs[netemLoss]) > 0 && attrs[netemLoss][2] == netemLossGE) ||
				!chained && got != share(want.Loss) || chained && got != 0 {
				t.Errorf("%v: loss %x and model %x", want, got, attrs[netemLoss])
			}
			if attrs[netemSeed] != nil && !bytes.Equal(attrs[netemSeed], long(directionSeed(7, side))) {
				t.Errorf("side %d: seed %x", side, attrs[netemSeed])
			}
		}
	}
}

// A change that the kernel refuses at the second end is taken back at the first.
func TestSetIsAllOrNothing(t *testing.T) {
	if err := ProbeTBF(); err != nil {
		t.Skip(err)
	}
	limited := topology.Shape{Rate: 10e6}
	refusing := refusal{tbf: tbf{without()}}
	made, _, _ := pairOf(t, shaped(limited), queueing{"refusing", []discipline{&refusing}, wired{without("TAP"), nil}})
	before, state := holding(t, made), made.State()
	other := topology.Shape{Rate: 20e6}
	set := func(a, b topology.Shape) error {
		return made.Set(func([2]topology.Shape) ([2]topology.Shape, error) { return [2]topology.Shape{a, b}, nil })
	}
	for _, tt := range []struct {
		name string
		a, b topology.Shape
		seed uint64
	}{{"a is refused", other, other, directionSeed(7, 0)}, {"b is refused", other, other, directionSeed(7, 1)}} {
		refusing.seed = tt.seed
		if err := set(tt.a, tt.b); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: %v", tt.name, err)
		}
		refusing.seed = 0
		if after := holding(t, made); !reflect.DeepEqual(before, after) || !reflect.DeepEqual(state, made.State()) {
			t.Errorf("%s:\nbefore %x\nafter  %x", tt.name, before, after)
		}
	}
	var unsupported *UnsupportedError
	if err := set(other, topology.Shape{Delay: time.Second}); !errors.As(err, &unsupported) {
		t.Errorf("a delay of tbf: %v", err)
	}
	mine := errors.New("mine")
	if err := made.Set(func([2]topology.Shape) (x [2]topology.Shape, _ error) { return x, mine }); !errors.Is(err, mine) {
		t.Error(err)
	}
	if after := holding(t, made); !reflect.DeepEqual(before, after) {
		t.Errorf("before %x\nafter  %x", before, after)
	}
	for _, shapes := range [][2]topology.Shape{{other, limited}, {{}, {}}, {limited, {}}, {limited, limited}} {
		if err := set(shapes[0], shapes[1]); err != nil {
			t.Fatal(err)
		}
		want := "tbf"
		if bare(shapes[0]) && bare(shapes[1]) {
			want = "none"
		}
		if got := made.State(); got.Shaper != want || !reflect.DeepEqual(got.Shapes, shapes) {
			t.Errorf("%v: %+v", shapes, got)
		}
	}
	if after := holding(t, made); !reflect.DeepEqual(before, after) {
		t.Errorf("and back:\nbefore %x\nafter  %x", before, after)
	}
	unshaped, err := Make(planned("x"), spaces(t, 1)[0], spaces(t, 1)[0], none{})
	if err != nil {
		t.Fatal(err)
	}
	if err := unshaped.Set(func(s [2]topology.Shape) ([2]topology.Shape, error) { return s, nil }); !errors.Is(err, ErrUnshaped) {
		t.Errorf("unshaped by wish: %v", err)
	}
}

// refusal is a tbf of which the kernel refuses one direction, after it has taken part of it.
type refusal struct {
	tbf
	seed uint64 // of that direction
}

func (r *refusal) Name() string { return "tbf" }

func (r *refusal) queues(s topology.Shape, mtu int, seed uint64) []netlink.Qdisc {
	qs := r.tbf.queues(s, mtu, seed)
	if seed == r.seed && s.Rate == 20e6 {
		qs = append(qs, &rawQdisc{QdiscAttrs: netlink.QdiscAttrs{Handle: emulatorHandle, Parent: filterHandle | 1}, kind: "bfifo", options: []byte{1}})
	}
	return qs
}
