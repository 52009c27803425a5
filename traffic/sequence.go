package traffic

import "sort"

// maxGaps bounds the runs of missing packets that one stream remembers one by one (40 MiB).
const maxGaps = 1 << 20

// maxLosses bounds the runs that a Result lists.
const maxLosses = 1 << 14

// sequence tells loss, duplication and reordering of one stream apart, exactly and for any order of arrival. It
// remembers what is missing, not what came, so a stream without loss costs nothing however long it is.
//
// A packet is reordered when a higher sequence number of its stream has arrived before it (RFC 4737 section 3.3, with
// sequence numbers for s); a packet that came before is a duplicate and nothing else (RFC 4737 section 3.2 excludes it).
type sequence struct {
	next     uint64  // one above the highest that arrived
	nextTime Instant // send time of the highest that arrived
	gaps     []gap   // ascending, disjoint, not empty, all below next
	folded   []Loss  // older gaps that were given up for memory
	floor    uint64  // what lies below cannot be classified any more

	received, duplicated, reordered, unclassified uint64
}

// gap is a run of missing packets, from first to before last, sent between two packets that arrived.
type gap struct {
	first, end    uint64
	after, before Instant
}

// arrive takes the packet seq, sent at t, and reports whether it came for the first time.
func (s *sequence) arrive(seq uint64, t Instant) (first bool) {
	if seq >= s.next {
		if seq > s.next {
			s.miss(gap{s.next, seq, s.nextTime, t})
		}
		s.next, s.nextTime = seq+1, t
		s.received++
		return true
	}
	if seq < s.floor {
		s.unclassified++
		return false
	}
	i := sort.Search(len(s.gaps), func(i int) bool { return s.gaps[i].end > seq })
	if i == len(s.gaps) || seq < s.gaps[i].first {
		s.duplicated++
		return false
	}
	s.received++
	s.reordered++
	g := s.gaps[i]
	left, right := gap{g.first, seq, g.after, t}, gap{seq + 1, g.end, t, g.before}
	switch {
	case left.first == left.end && right.first == right.end:
		s.gaps = append(s.gaps[:i], s.gaps[i+1:]...)
	case left.first == left.end:
		s.gaps[i] = right
	case right.first == right.end:
		s.gaps[i] = left
	default:
		s.gaps = append(s.gaps, gap{})
		copy(s.gaps[i+2:], s.gaps[i+1:])
		s.gaps[i], s.gaps[i+1] = left, right
	}
	return true
}

func (s *sequence) miss(g gap) {
	if len(s.gaps) >= maxGaps {
		old := s.gaps[:maxGaps/2]
		s.floor = old[len(old)-1].end
		for _, g := range old {
			s.folded = append(s.folded, g.loss(0))
		}
		s.folded = condense(s.folded, maxLosses/2)
		s.gaps = append(s.gaps[:0], s.gaps[maxGaps/2:]...)
	}
	s.gaps = append(s.gaps, g)
}

// end closes the stream: sent packets were sent, the last of them before t.
func (s *sequence) end(sent uint64, t Instant) {
	if sent > s.next {
		s.miss(gap{s.next, sent, s.nextTime, t})
		s.next = sent
	}
}

// losses lists what is missing.
func (s *sequence) losses(stream int) []Loss {
	out := make([]Loss, 0, len(s.folded)+len(s.gaps))
	for _, l := range s.folded {
		l.Stream = stream
		out = append(out, l)
	}
	for _, g := range s.gaps {
		out = append(out, g.loss(stream))
	}
	return out
}

func (g gap) loss(stream int) Loss {
	return Loss{Stream: stream, First: g.first, Last: g.end - 1, Count: g.end - g.first, After: g.after, Before: g.before}
}

// condense puts neighbours of a stream together until at most limit are left (or one for each stream). What is lost is
// precision of time, never a packet.
func condense(l []Loss, limit int) []Loss {
	for len(l) > limit {
		out := l[:0]
		for i := 0; i < len(l); i++ {
			m := l[i]
			if i+1 < len(l) && l[i+1].Stream == m.Stream {
				i++
				m.Last = l[i].Last
				m.Count += l[i].Count
				m.After = min(m.After, l[i].After)
				m.Before = max(m.Before, l[i].Before)
			}
			out = append(out, m)
		}
		if len(out) == len(l) {
			return out
		}
		l = out
	}
	return l
}
