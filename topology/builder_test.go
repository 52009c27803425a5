package topology_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"
	"time"

	"pqlab/topology"
)

// Every mistake of a sentence is reported, at the line of its call.
func TestBuilderErrors(t *testing.T) {
	t.Parallel()
	_, _, line, _ := runtime.Caller(0)
	_, err := topology.New("mistakes"). // line+1
						Host("h1").
						DPU("d1", topology.On("h2")).
						Client("c", topology.Inner("10.0.0.1")).
						Ethernet("h1", "c", topology.Loss(2)).
						Ethernet("h1", "c", 0*topology.Gbit, topology.At("x", "eth0")).
						Tunnel("t", "h1", "d3", topology.Suite("x+y"), topology.Protect("h7", "10.0.0.0/8")).
						UDP("h1", "c", topology.Via("d1")).
						Topology()
	var errs topology.Errors
	if !errors.As(err, &errs) {
		t.Fatalf("got %v, want Errors", err)
	}
	type place struct {
		line int
		kind topology.ErrorKind
	}
	got := map[place]int{}
	for _, e := range errs {
		if e.File != "builder_test.go" {
			t.Errorf("%v: file %q", e, e.File)
		}
		got[place{e.Line - line, e.Kind}]++
	}
	want := map[place]int{
		{3, topology.UnknownName}: 1,
		{4, topology.BadValue}:    1,
		{5, topology.BadValue}:    1,
		{6, topology.BadValue}:    2,
		{7, topology.UnknownName}: 1,
		{7, topology.BadValue}:    2,
		{8, topology.BadValue}:    1,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v\n%v", got, want, err)
	}
}

// Every option sets its field.
func TestBuilderOptions(t *testing.T) {
	t.Parallel()
	mcs := 0
	top, err := topology.New("all").Describe("all options").Seed(3).Verify(topology.Tolerance{Rate: 0.01, Delay: time.Second, Jitter: time.Minute, Tail: time.Hour, Confidence: 0.5}).
		Host("h1", topology.Profile("xeon"), topology.Inner("192.168.9.1/32")).
		DPU("d1", topology.On("h1"), topology.Certificate("d1.pem")).
		Host("h2", topology.Certificate("/h2.pem")).
		PCIe("h1", "d1", topology.MTU(4000), topology.Slot(4, 16)).
		AP("ap", topology.Cell{Width: 160, Exponent: 3, Interferers: []topology.Interferer{{Duty: 0.25, Power: -50}}}).
		Client("c").WiFi("c", "ap", topology.Station{Profile: "phone-ac-1x1-80", Distance: 8, Walls: 2, MCS: &mcs, MaxAMPDU: 16}).
		Client("m").WiFi("m", "ap", topology.Station{Profile: "iot-n-1x1-20", Path: []topology.Waypoint{{Distance: 1}, {At: time.Second, Distance: 2, Walls: 3}}}).
		Client("s").WiFi("s", "ap", topology.Station{Profile: "jetson-ac-2x2-80"}).
		Ethernet("h1", "h2", topology.Mbit, topology.Queue{Kind: topology.CoDel, Bytes: 2000, Target: 1, Interval: 2}, topology.LossTrace(1, 2, 3),
			topology.Outages(topology.Outage{Start: 1, Length: 2, Every: 3}, topology.Outage{Start: 0, Length: 1})).
		Ethernet("h1", "h2", topology.RateTrace(topology.RateStep{Length: time.Second, Rate: topology.Mbit}, topology.RateStep{Length: time.Second}), topology.Queue{Time: time.Second}).
		Fibre("d1", "h2", 10*topology.Gbit, topology.Name("f"), topology.Delay(time.Millisecond), topology.Jitter(time.Microsecond), topology.Loss(0.1),
			topology.Length(5), topology.Attenuation(0.4), topology.LinkSeed(9), topology.At("h2", "ens1", "10.3.0.1/24")).
		Tunnel("t", "d1", "h2", topology.Suite("mldsa44+mlkem512"), topology.Combiner("hardened"), topology.Identity("pinned"), topology.Mutual(),
			topology.OfferTLS("secp256r1"), topology.CA("ca.pem"), topology.Rekey(topology.Limits{Packets: 5000}), topology.Encapsulation("esp"),
			topology.Dataplane("gateway"), topology.Family("ipv6"), topology.Deadline(time.Second), topology.Protect("h2", "10.3.0.1/32", "fd70:716c:6162:1::2/128")).
		Ethernet("h1", "h2", topology.Delay(time.Second), topology.Jitter(time.Second), topology.Distribution("pareto"), topology.Unordered(),
			topology.Loss(0.1), topology.LossCorrelation(0.2), topology.Duplication(0.3), topology.Reordering(0.4), topology.Corruption(0.5)).
		Ethernet("h1", "h2", topology.Delay(time.Second), topology.Jitter(time.Millisecond), topology.Table(1, -2),
			topology.GilbertElliott{P: 0.1, R: 0.2, Bad: 0.3, Good: 0.25}).
		TCP("h1", "h2", topology.Via("d1"), topology.Name("relayed"), topology.For(time.Second)).
		UDP("h1", "h2", topology.Mbit, topology.Streams(2), topology.FrameSize(500), topology.Family("ipv6")).
		Topology()
	if err != nil {
		t.Fatal(err)
	}
	want, err := topology.Parse("x", []byte(`
name: all
description: all options
seed: 3
verify: true
tolerance: {rate: 1%, delay: 1s, jitter: 1m, tail: 1h, confidence: 50%}
nodes:
  - {name: h1, kind: host, profile: xeon, inner: [192.168.9.1/32]}
  - {name: d1, kind: dpu, host: h1, certificate: d1.pem}
  - {name: h2, kind: host, certificate: /h2.pem}
  - {name: ap, kind: ap, wifi: {width: 160MHz, exponent: 3, interferers: [{duty: 25%, power: -50dBm}]}}
  - {name: c, kind: client}
  - {name: m, kind: client}
  - {name: s, kind: client}
links:
  - {kind: pcie, a: h1, b: d1, mtu: 4000, gen: 4, lanes: 16}
  - {kind: wifi, a: c, b: ap, wifi: {profile: phone-ac-1x1-80, distance: 8m, walls: 2, mcs: 0, max_ampdu: 16}}
  - {kind: wifi, a: m, b: ap, wifi: {profile: iot-n-1x1-20, path: [{at: 0s, distance: 1m}, {at: 1s, distance: 2m, walls: 3}]}}
  - {kind: wifi, a: s, b: ap, wifi: jetson-ac-2x2-80}
  - {kind: ethernet, a: h1, b: h2, rate: 1Mbit/s, queue: {kind: codel, bytes: 2000, target: 1ns, interval: 2ns}, loss_trace: [1, 2, 3], outages: [{start: 1ns, length: 2ns, every: 3ns}, {length: 1ns}]}
  - {kind: ethernet, a: h1, b: h2, rate_trace: [1s 1Mbit/s, 1s 0bit/s], queue: {time: 1s}}
  - {name: f, kind: fibre, a: d1, b: {node: h2, interface: ens1, addresses: [10.3.0.1/24]}, rate: 10Gbit/s, delay: 1ms, jitter: 1us, loss: 10%, length: 5m, attenuation: 0.4dB/km, seed: 9}
  - {kind: ethernet, a: h1, b: h2, delay: 1s, jitter: 1s, distribution: pareto, unordered: true, loss: 10%, loss_correlation: 20%, duplication: 30%, reordering: 40%, corruption: 50%}
  - {kind: ethernet, a: h1, b: h2, delay: 1s, jitter: 1ms, table: [1, -2], gilbert_elliott: {p: 10%, r: 20%, bad: 30%, good: 25%}}
tunnels:
  - name: t
    a: d1
    b: {node: h2, subnets: [10.3.0.1/32, "fd70:716c:6162:1::2/128"]}
    suite: mldsa44+mlkem512
    combiner: hardened
    identity: pinned
    mutual: true
    tls_groups: [secp256r1]
    ca: ca.pem
    rekey: {packets: 5000}
    encapsulation: esp
    dataplane: gateway
    family: ipv6
    deadline: 1s
traffic:
  - {name: relayed, from: h1, to: h2, via: [d1], proto: tcp, duration: 1s}
  - {from: h1, to: h2, proto: udp, rate: 1Mbit/s, streams: 2, frame_size: 500, family: ipv6}
`))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(top, want) {
		t.Errorf("got  %+v\nwant %+v", top, want)
	}
}

// A DPU is joined to its host unless the author did that.
func TestBuilderJoinsDPU(t *testing.T) {
	t.Parallel()
	b := topology.New("x").Host("h1").DPU("d1", topology.On("h1")).Host("h2").DPU("d2", topology.On("h2")).PCIe("d2", "h2")
	for range 2 { // a builder may be finished twice
		top, err := b.Topology()
		if err != nil {
			t.Fatal(err)
		}
		if len(top.Links) != 2 || top.Links[0].A.Node != "d2" || top.Links[1].A.Node != "h1" {
			t.Errorf("links %+v", top.Links)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	suites := topology.Suites()
	if len(suites) != len(topology.Signatures())*len(topology.KEMs()) {
		t.Errorf("%d suites", len(suites))
	}
	for _, s := range suites {
		if _, err := topology.New("x").Host("a").Host("b").Ethernet("a", "b").Tunnel("t", "a", "b", topology.Suite(s)).Plan(); err != nil {
			t.Error(err)
		}
	}
}

// Files are found beside the topology's own file.
func TestFilesAreBesideTheTopology(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "lab.yaml")
	text := `
nodes: [{name: a, kind: host, certificate: a.pem}, {name: b, kind: host, certificate: /elsewhere/b.pem}]
links: [{kind: ethernet, a: a, b: b}]
tunnels: [{name: t, a: a, b: b, ca: certs/ca.pem}]
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	top, err := topology.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ got, want string }{
		{p.Nodes[0].Certificate, filepath.Join(dir, "a.pem")},
		{p.Nodes[1].Certificate, "/elsewhere/b.pem"},
		{p.Tunnels[0].CA, filepath.Join(dir, "certs/ca.pem")},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
}
