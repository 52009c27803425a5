package run

import (
	"encoding/json"
	"time"

	"pqlab/ipsec"
	"pqlab/ipsec/keying"
	"pqlab/lab"
	"pqlab/report"
	"pqlab/topology"
	"pqlab/traffic"
)

// exchangeOf joins what the two ends measured of one exchange.
func exchangeOf(i, r keying.Report, took float64) *report.Exchange {
	e := &report.Exchange{
		Suite: i.Suite, Ms: took, BytesSent: uint64(i.Traffic.Sent), BytesReceived: uint64(i.Traffic.Received),
		Bytes: uint64(i.Traffic.Sent + i.Traffic.Received),
	}
	add := func(name, side string, d time.Duration) {
		if d > 0 {
			e.Steps = append(e.Steps, report.Step{Name: name, Side: side, Ms: ms(d)})
		}
	}
	add("TLS", "", max(i.Timings.TLS, r.Timings.TLS))
	for _, end := range []struct {
		side string
		keying.Report
	}{{"responder", r}, {"initiator", i}} {
		t := end.Timings
		add("signature keygen", end.side, t.SignatureKeygen)
		add("KEM keygen", end.side, t.KEMKeygen)
		add("sign", end.side, t.Sign)
		add("verify", end.side, t.Verify)
		add("encaps", end.side, t.Encaps)
		add("decaps", end.side, t.Decaps)
		add("combine", end.side, t.Combine)
	}
	return e
}

// flowOf tells what was asked of a flow, for d if it does not say so itself, and what became of it, which is
// undelivered if there is a reason.
func flowOf(f topology.PlannedFlow, d time.Duration, got traffic.Result, undelivered string) report.Flow {
	rate, d := lab.Asked(f, d)
	out := report.Flow{
		Name: f.Name, From: f.From, To: f.To, Via: f.Via, Unit: report.Packets, Tunnels: f.Tunnels, Proto: f.Proto, Streams: f.Streams,
		Undelivered:   undelivered,
		Asked:         report.Asked{BitsPerSecond: float64(rate), FrameSize: f.FrameSize, Duration: ms(d)},
		BitsPerSecond: got.BitsPerSecond, Sent: got.Sent, Received: got.Received, Lost: got.Lost, Duplicated: got.Duplicated,
		Reordered: got.Reordered, Retransmitted: got.Retransmitted, Congestion: got.Congestion, SocketDrops: got.SocketDrops, Duration: ms(got.Duration),
	}
	if f.Proto == traffic.TCP {
		out.Unit = report.Bytes
	}
	if l := got.Latency; l != nil {
		out.Latency = &report.Latency{P50: l.P50, P90: l.P90, P99: l.P99, Max: l.Max, Mean: l.Mean}
	}
	for _, b := range got.Bins {
		out.Bins = append(out.Bins, report.Bin{At: b.At, Bits: b.Bits})
	}
	return out
}

// dropsOf names the reasons as the dataplanes do.
func dropsOf(d ipsec.Drops) map[string]uint64 {
	text, err := json.Marshal(d)
	if err != nil {
		panic(err) // a struct of numbers always marshals
	}
	reasons := map[string]uint64{}
	if err := json.Unmarshal(text, &reasons); err != nil {
		panic(err)
	}
	return reasons
}
