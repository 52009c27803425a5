package offload

import "encoding/binary"

const (
	protoTCP = 6
	protoUDP = 17

	flagFIN = 0x01
	flagPSH = 0x08
	flagCWR = 0x80
)

// Segmenter cuts one packet as its Header asks, with all checksums completed. The zero value is ready for Reset.
type Segmenter struct {
	packet    []byte
	header    int // bytes of headers that each segment repeats; 0 where the packet goes as it is
	transport int // offset of the TCP or UDP header
	proto     uint8
	size      int // payload of a segment
	at        int // offset of the next segment's payload; len(packet) when there is none left
	index     int
	whole     bool // the packet is not cut
	done      bool
}

// Reset begins a packet, which the Segmenter reads, and in part writes, until the last call of Next.
func (s *Segmenter) Reset(h Header, packet []byte) error {
	*s = Segmenter{packet: packet, done: true}
	if len(packet) < 20 {
		return ErrMalformed
	}
	if h.GSOType == gsoNone {
		if h.Flags&NeedsChecksum != 0 && !complete(packet, int(h.CsumStart), int(h.CsumField)) {
			return ErrMalformed
		}
		s.whole, s.done = true, false
		return nil
	}
	s.transport = int(h.CsumStart)
	switch h.GSOType &^ gsoECN {
	case gsoTCPv4, gsoTCPv6:
		s.proto = protoTCP
		if len(packet) < s.transport+20 {
			return ErrMalformed
		}
		n := int(packet[s.transport+12]>>4) * 4
		if n < 20 {
			return ErrMalformed
		}
		s.header = s.transport + n
	case gsoUDP:
		s.proto = protoUDP
		s.header = s.transport + 8
	default:
		return ErrMalformed
	}
	s.size, s.at = int(h.GSOSize), s.header
	ipOK := false
	switch {
	case packet[0]>>4 == 4 && h.GSOType&^gsoECN != gsoTCPv6:
		ipOK = s.transport >= 20 && s.transport == int(packet[0]&15)*4 && packet[9] == s.proto
	case packet[0]>>4 == 6 && h.GSOType&^gsoECN != gsoTCPv4:
		ipOK = s.transport >= 40 // extension headers may stand between
	}
	if !ipOK || s.size == 0 || len(packet) <= s.header {
		return ErrMalformed
	}
	s.done = false
	return nil
}

// complete turns a partial checksum, which covers the pseudo header, into the whole one.
func complete(packet []byte, start, field int) bool {
	if field+2 > len(packet) || start+field+2 > len(packet) {
		return false
	}
	c := ^fold(sum(packet[start:], 0))
	if c == 0 && field == 6 { // UDP: zero would say that there is no checksum (RFC 768)
		c = 0xffff
	}
	store(packet[start+field:], c)
	return true
}

// Count is the number of segments that the packet makes in all.
func (s *Segmenter) Count() int {
	if s.whole {
		return 1
	}
	return (len(s.packet) - s.header + s.size - 1) / s.size
}

// Header is the length in bytes of the headers that each segment repeats; 0 where the packet goes as it is.
func (s *Segmenter) Header() int { return s.header }

// Largest is the length in bytes of the packet's largest segment.
func (s *Segmenter) Largest() int {
	if s.whole {
		return len(s.packet)
	}
	return min(s.header+s.size, len(s.packet))
}

// Len is the length in bytes of the next segment; 0 when there is none.
func (s *Segmenter) Len() int {
	switch {
	case s.done:
		return 0
	case s.whole:
		return len(s.packet)
	}
	return s.header + min(s.size, len(s.packet)-s.at)
}

// Next writes the next segment to dst, which has Len bytes.
func (s *Segmenter) Next(dst []byte) {
	if s.whole {
		copy(dst, s.packet)
		s.done = true
		return
	}
	t := s.next(dst[:s.Len()], 1)
	field := 16
	if s.proto == protoUDP {
		field = 6
	}
	store(t[field:], 0)
	c := ^fold(sum(t, pseudo(dst, s.proto, len(t))))
	if c == 0 && s.proto == protoUDP {
		c = 0xffff
	}
	store(t[field:], c)
}

// LenOf is the length in bytes of the next n segments, or of what is left, as one packet; 0 when there is nothing left.
func (s *Segmenter) LenOf(n int) int {
	if s.done || s.whole {
		return s.Len()
	}
	return s.header + min(n*s.size, len(s.packet)-s.at)
}

// NextOf writes the next n segments, or what is left, to dst, which has LenOf(n) bytes, as one packet to be cut, or to be
// completed, as its Header says. The packet that Reset was given has a Header that asks for more than one segment.
func (s *Segmenter) NextOf(n int, dst []byte) Header {
	dst = dst[:s.LenOf(n)]
	h := Header{Flags: NeedsChecksum, HeaderLen: uint16(s.header), CsumStart: uint16(s.transport), CsumField: 16}
	if s.proto == protoUDP {
		h.CsumField = 6
	}
	if len(dst) > s.header+s.size {
		h.GSOSize = uint16(s.size)
		switch {
		case s.proto == protoUDP:
			h.GSOType = gsoUDP
		case s.packet[0]>>4 == 4:
			h.GSOType = gsoTCPv4
		default:
			h.GSOType = gsoTCPv6
		}
	}
	first := s.index == 0
	t := s.next(dst, n)
	if s.proto == protoTCP && first && t[13]&flagCWR != 0 && h.GSOType != gsoNone {
		h.GSOType |= gsoECN
	}
	store(t[h.CsumField:], fold(pseudo(dst, s.proto, len(t))))
	return h
}

// next writes the next segments to dst, of their length, but for the checksum of the transport, which begins at t.
func (s *Segmenter) next(dst []byte, segments int) (t []byte) {
	n := len(dst) - s.header
	copy(dst, s.packet[:s.header])
	copy(dst[s.header:], s.packet[s.at:s.at+n])
	last := s.at+n == len(s.packet)

	if dst[0]>>4 == 4 {
		binary.BigEndian.PutUint16(dst[2:], uint16(len(dst)))
		id := binary.BigEndian.Uint16(dst[4:])
		binary.BigEndian.PutUint16(dst[4:], id+uint16(s.index))
		setIPv4Checksum(dst[:s.transport])
	} else {
		binary.BigEndian.PutUint16(dst[4:], uint16(len(dst)-40))
	}
	t = dst[s.transport:]
	if s.proto == protoTCP {
		seq := binary.BigEndian.Uint32(t[4:])
		binary.BigEndian.PutUint32(t[4:], seq+uint32(s.at-s.header))
		if !last {
			t[13] &^= flagFIN | flagPSH
		}
		if s.index > 0 {
			t[13] &^= flagCWR
		}
	} else {
		binary.BigEndian.PutUint16(t[4:], uint16(len(t)))
	}
	s.at += n
	s.index += segments
	s.done = last
	return t
}
