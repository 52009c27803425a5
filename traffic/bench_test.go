package traffic

import (
	"net/netip"
	"testing"
)

func BenchmarkUDP(b *testing.B) {
	for name, src := range map[string]UDPSource{
		"60":        {FrameSize: 60},
		"1400":      {FrameSize: 1400},
		"1400noGSO": {FrameSize: 1400, NoGSO: true},
	} {
		b.Run(name, func(b *testing.B) {
			sink := listenUDP(b, UDPSinkConfig{})
			src.To, src.Packets = sink.Addr(), uint64(b.N)
			b.SetBytes(int64(src.FrameSize))
			b.ReportAllocs()
			sent, err := src.Run(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			r, err := sink.Finish(b.Context(), sent)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(100*float64(r.Lost)/float64(r.Sent), "%lost")
		})
	}
}

func BenchmarkTCP(b *testing.B) {
	sink, err := ListenTCP(b.Context(), netip.AddrPortFrom(loopback4, 0))
	if err != nil {
		b.Fatal(err)
	}
	defer sink.Close()
	b.SetBytes(chunk)
	b.ReportAllocs()
	if _, err := (TCPSource{To: sink.Addr(), Bytes: uint64(b.N) * chunk}).Run(b.Context()); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkSequence(b *testing.B) {
	var s sequence
	b.ReportAllocs()
	for i := range uint64(b.N) {
		s.arrive(i, Instant(i))
	}
}

func BenchmarkReceive(b *testing.B) {
	s := UDPSink{streams: make([]sequence, 1), latency: newHistogram()}
	d := make([]byte, 1372)
	b.ReportAllocs()
	for i := range uint64(b.N) {
		header{seq: i, sent: Instant(i)}.put(d)
		s.take(d, Instant(i+20000))
	}
}
