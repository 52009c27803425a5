package run

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"pqlab/ipsec"
	"pqlab/ipsec/keying"
	"pqlab/links"
	"pqlab/pqc/exchange"
	"pqlab/report"
	"pqlab/topology"
	"pqlab/traffic"
)

func TestExchangeOf(t *testing.T) {
	t.Parallel()
	i := keying.Report{
		Suite:   "s+k",
		Traffic: exchange.Traffic{Sent: 10, Received: 20},
		Timings: exchange.Timings{TLS: 3 * time.Millisecond, Verify: time.Millisecond, Encaps: 2 * time.Millisecond, Combine: time.Microsecond},
	}
	r := keying.Report{Timings: exchange.Timings{TLS: 4 * time.Millisecond, Sign: 5 * time.Millisecond, Combine: 2 * time.Microsecond}}
	got := exchangeOf(i, r, 7)
	want := &report.Exchange{Suite: "s+k", Ms: 7, Bytes: 30, BytesSent: 10, BytesReceived: 20, Steps: []report.Step{
		{Name: "TLS", Ms: 4},
		{Name: "sign", Side: "responder", Ms: 5},
		{Name: "combine", Side: "responder", Ms: 0.002},
		{Name: "verify", Side: "initiator", Ms: 1},
		{Name: "encaps", Side: "initiator", Ms: 2},
		{Name: "combine", Side: "initiator", Ms: 0.001},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Every field of a report's flow comes from the field of the same meaning; none is left out.
func TestFlowOf(t *testing.T) {
	t.Parallel()
	in := traffic.Result{
		Name: "n", From: "f", To: "t", Proto: "udp", Streams: 1, Sent: 2, Received: 3, Lost: 4, Duplicated: 5, Reordered: 6, SocketDrops: 7,
		Retransmitted: 8, Congestion: "cubic", BitsPerSecond: 9, Duration: 10 * time.Millisecond,
		Latency: &traffic.Latency{P50: 11, P90: 12, P99: 13, Max: 14, Mean: 15}, Bins: []traffic.Bin{{At: 16, Bits: 17}},
	}
	got := flowOf(topology.PlannedFlow{Flow: topology.Flow{
		Name: in.Name, From: in.From, To: in.To, Proto: in.Proto, Streams: in.Streams, Via: []string{"relay"}, FrameSize: 700,
	}, Tunnels: []string{"vpn"}}, 3*time.Second, in, "why")
	want := report.Flow{
		Name: "n", From: "f", To: "t", Proto: "udp", Streams: 1, Sent: 2, Received: 3, Lost: 4, Duplicated: 5, Reordered: 6, SocketDrops: 7,
		Retransmitted: 8, Congestion: "cubic", BitsPerSecond: 9, Duration: 10, Via: []string{"relay"}, Unit: report.Packets, Tunnels: []string{"vpn"},
		Latency: &report.Latency{P50: 11, P90: 12, P99: 13, Max: 14, Mean: 15}, Bins: []report.Bin{{At: 16, Bits: 17}},
		Undelivered: "why", Asked: report.Asked{BitsPerSecond: 100e6, FrameSize: 700, Duration: 3000},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	v := reflect.ValueOf(got)
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; v.Field(i).IsZero() && name != "Start" { // which is in the run's time
			t.Errorf("%s is not filled in", name)
		}
	}
	if got := flowOf(topology.PlannedFlow{Flow: topology.Flow{Proto: "tcp"}}, 0, traffic.Result{}, ""); got.Unit != report.Bytes {
		t.Errorf("TCP is counted in %s", got.Unit)
	}
	if empty := flowOf(topology.PlannedFlow{}, 0, traffic.Result{}, ""); empty.Latency != nil || len(empty.Bins) != 0 {
		t.Errorf("of nothing: %+v", empty)
	}
}

// Each reason for which a dataplane drops is named, and only once.
func TestDropsOf(t *testing.T) {
	t.Parallel()
	var d ipsec.Drops
	v := reflect.ValueOf(&d).Elem()
	for i := range v.NumField() {
		v.Field(i).SetUint(uint64(1) << (40 + i)) // beyond what a float of 32 bits keeps
	}
	got := dropsOf(d)
	var counts []uint64
	for _, n := range got {
		counts = append(counts, n)
	}
	slices.Sort(counts)
	for i, n := range counts {
		if n != uint64(1)<<(40+i) {
			t.Errorf("%v", got)
			break
		}
	}
	if len(got) != v.NumField() || got["no_sa"] != d.NoSA || got["unknown_spi"] != d.UnknownSPI || got["expired"] != d.Expired {
		t.Errorf("%v of %+v", got, d)
	}
}

// A packet without an SA is the rekey's; one that the way lost is told, and is not.
func TestJudgeRekeys(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		rekeys   []report.Rekey
		homeless uint64
		loss     float64 // of the link
		checks   int
		ok       bool
		note     bool
	}{
		"no rekey":            {nil, 3, 0, 0, false, false},
		"nothing lost":        {[]report.Rekey{{}, {}}, 0, 0, 1, true, false},
		"lost by rekeys":      {[]report.Rekey{{Lost: 3}}, 3, 0, 1, false, false},
		"refused, not lost":   {[]report.Rekey{{}}, 1, 0, 1, false, false},
		"lost on the way":     {[]report.Rekey{{}, {Lost: 3}}, 0, 0, 1, true, true},
		"on a way that loses": {[]report.Rekey{{Lost: 3}}, 0, 0.1, 1, true, true},
	} {
		p := &topology.Plan{Links: []topology.PlannedLink{{Link: topology.Link{Shape: topology.Shape{Loss: tt.loss}}}}}
		r := runner{plan: p, result: report.Result{Rekeys: tt.rekeys}}
		r.judgeRekeys(tt.homeless, links.Dropped{})
		if len(r.result.Checks) != tt.checks || tt.checks > 0 && r.result.Checks[0].OK != tt.ok || (r.result.RekeyNote != "") != tt.note {
			t.Errorf("%s: %+v, %q", name, r.result.Checks, r.result.RekeyNote)
		}
	}
}
