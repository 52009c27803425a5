package wire

import (
	"encoding/binary"

	"pqlab/internal/offload"
	"pqlab/links/medium"
)

const (
	ethernetLen = 14
	vlanLen     = 4
)

// linkLen is the length in bytes of a frame's headers before the network layer's.
func linkLen(frame []byte) int {
	n := ethernetLen
	for len(frame) >= n && n <= ethernetLen+vlanLen {
		if kind := binary.BigEndian.Uint16(frame[n-2:]); kind != 0x8100 && kind != 0x88a8 {
			break
		}
		n += vlanLen
	}
	return n
}

// cutter makes packets for a medium of what the kernel sends.
type cutter struct {
	buffers   *buffers
	segmenter offload.Segmenter
}

// cut gives enter the packets that data is made of: itself, or, if it is a large segment of more than whole bytes on the
// link, pieces of as many frames as that has room for, of one at least. data, which cut takes, is a struct virtio_net_hdr
// and an Ethernet frame. It returns false if they do not fit together.
func (c *cutter) cut(data []byte, whole int, enter func(medium.Packet)) bool {
	frame := data[offload.HeaderLen:]
	var h offload.Header
	h.Decode(data)
	if !h.Segmented() {
		enter(medium.Packet{Size: len(frame), Frames: 1, Data: data})
		return true
	}
	l2 := linkLen(frame)
	h.CsumStart -= uint16(l2) // one that lies in the link's header wraps, and is refused as out of the packet
	s := &c.segmenter
	if err := s.Reset(h, frame[min(l2, len(frame)):]); err != nil {
		c.buffers.put(data)
		return false
	}
	overhead := l2 + s.Header()
	sizeOf := func(packet int) (size, frames int) { // of a packet of so many bytes as frames on the link
		payload := packet - s.Header()
		frames = (payload + int(h.GSOSize) - 1) / int(h.GSOSize)
		return payload + frames*overhead, frames
	}
	if size, frames := sizeOf(len(frame) - l2); size <= whole {
		enter(medium.Packet{Size: size, Frames: frames, Data: data})
		return true
	}
	fit := max(1, whole/(overhead+int(h.GSOSize)))
	for n := s.LenOf(fit); n > 0; n = s.LenOf(fit) {
		piece := c.buffers.get(offload.HeaderLen + l2 + n)
		copy(piece[offload.HeaderLen:], frame[:l2])
		ph := s.NextOf(fit, piece[offload.HeaderLen+l2:])
		ph.HeaderLen += uint16(l2)
		ph.CsumStart += uint16(l2)
		ph.Encode(piece)
		size, frames := sizeOf(n)
		enter(medium.Packet{Size: size, Frames: frames, Data: piece})
	}
	c.buffers.put(data)
	return true
}

// flip turns over a bit of the frame, numbered as in medium.Packet. The checksum that the sender's kernel left to the
// interface is completed first, or the receiver's would take the frame for whole.
func flip(data []byte, bit int) {
	frame := data[offload.HeaderLen:]
	var h offload.Header
	h.Decode(data)
	if h.Flags&offload.NeedsChecksum != 0 {
		l2 := linkLen(frame)
		h.CsumStart -= uint16(l2)
		var s offload.Segmenter
		if s.Reset(h, frame[min(l2, len(frame)):]) == nil { // which completes it in place
			clear(data[:offload.HeaderLen])
		}
	}
	if at := (bit - 1) / 8; at < len(frame) {
		frame[at] ^= 1 << ((bit - 1) % 8)
	}
}
