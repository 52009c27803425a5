package offload

import (
	"bytes"
	"fmt"
	"testing"
)

// super is a Writer that keeps the packets that ask to be cut.
type super struct {
	headers []Header
	packets [][]byte
}

func (s *super) Write(h *Header, pieces [][]byte) error {
	if h.Segmented() {
		s.headers = append(s.headers, *h)
		s.packets = append(s.packets, bytes.Join(pieces, nil))
	}
	return nil
}

func cut(t testing.TB, h Header, packet []byte) (segments [][]byte) {
	t.Helper()
	var s Segmenter
	if err := s.Reset(h, packet); err != nil {
		t.Fatal(err)
	}
	for s.Len() > 0 {
		segment := make([]byte, s.Len())
		s.Next(segment)
		segments = append(segments, segment)
	}
	return segments
}

// A packet cut into pieces, and these into segments, gives what it gives when cut at once.
func TestPieces(t *testing.T) {
	for name, packets := range map[string][][]byte{
		"TCP IPv4":             segments(t, spec{ttl: 64, seq: 1 << 31, id: 65530}, 40*1400, 1400),
		"last is short":        segments(t, spec{ttl: 64}, 39*1400+1, 1400),
		"IPv6, options":        segments(t, spec{v6: true, ttl: 64, options: timestamps, seq: 1<<32 - 3000}, 40*1388, 1388),
		"UDP":                  segments(t, spec{udp: true, ttl: 64}, 40*1400, 1400),
		"UDP IPv6, odd, short": segments(t, spec{udp: true, v6: true, ttl: 64}, 5*1401+1, 1401),
	} {
		for _, ecn := range []bool{false, true} {
			var c Coalescer
			for _, p := range packets {
				c.Add(bytes.Clone(p))
			}
			var whole super
			if lost, err := c.Flush(&whole); lost > 0 || err != nil || len(whole.packets) != 1 {
				t.Fatal(name, lost, err, len(whole.packets))
			}
			h, packet := whole.headers[0], whole.packets[0]
			if ecn {
				if h.GSOType == gsoUDP {
					continue
				}
				h.GSOType |= gsoECN
				packet[h.CsumStart+13] |= flagCWR
			}
			want := cut(t, h, bytes.Clone(packet))
			for n := 1; n <= len(want)+1; n++ {
				t.Run(fmt.Sprintf("%s, CWR %v, %d", name, ecn, n), func(t *testing.T) {
					var s Segmenter
					if err := s.Reset(h, packet); err != nil {
						t.Fatal(err)
					}
					var got [][]byte
					pieces := 0
					for ; s.LenOf(n) > 0; pieces++ {
						piece := bytes.Repeat([]byte{0xff}, s.LenOf(n))
						ph := s.NextOf(n, piece)
						if ph.Segmented() != (len(piece) > s.Largest()) || ph.Flags != NeedsChecksum {
							t.Errorf("piece %d: %+v", pieces, ph)
						}
						if wantECN := ecn && pieces == 0 && n > 1; wantECN != (ph.GSOType&gsoECN != 0) {
							t.Errorf("piece %d: GSO type %x", pieces, ph.GSOType)
						}
						got = append(got, cut(t, ph, piece)...)
					}
					if pieces != (len(want)+n-1)/n {
						t.Errorf("%d pieces", pieces)
					}
					same(t, got, want)
				})
			}
		}
	}
}
