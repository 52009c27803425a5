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
// link, its frames. data, which cut takes, is a struct virtio_net_hdr and an Ethernet frame. It returns false if they do
// not fit together.
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
	if err := c.segmenter.Reset(h, frame[min(l2, len(frame)):]); err != nil {
		c.buffers.put(data)
		return false
	}
	count := c.segmenter.Count()
	size := len(frame) + (count-1)*(l2+c.segmenter.Header())
	if size <= whole || count == 1 {
		enter(medium.Packet{Size: size, Frames: count, Data: data})
		return true
	}
	for n := c.segmenter.Len(); n > 0; n = c.segmenter.Len() {
		one := c.buffers.get(offload.HeaderLen + l2 + n)
		clear(one[:offload.HeaderLen])
		copy(one[offload.HeaderLen:], frame[:l2])
		c.segmenter.Next(one[offload.HeaderLen+l2:])
		enter(medium.Packet{Size: l2 + n, Frames: 1, Data: one})
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
