package offload

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

const (
	flagACK = 0x10
	flagECE = 0x40

	maxPacket      = 65535
	maxUDPSegments = 64  // UDP_MAX_SEGMENTS of older kernels
	maxTCPSegments = 512 // so that the pieces of a packet fit in one writev (UIO_MAXIOV)
)

// Coalescer joins consecutive segments of a TCP or UDP flow into super-packets, and passes everything else as it is. Only
// segments that a Segmenter would restore to the last bit are joined, so nothing is lost by it: checksums are verified
// before they are replaced. The order within a flow is kept. The zero value is ready.
//
// It does not copy: packets belong to it from Add until Flush returns.
type Coalescer struct {
	groups []group
	rest   []rest
	slots  [256]int32 // index+1 in groups of the open group of the flows with that hash
	pieces [][]byte
	header Header // lies here so that a call through Writer allocates nothing
}

// group is a super-packet to be.
type group struct {
	head      []byte // first packet, with headers
	first     int32  // index+1 in Coalescer.rest of the second packet
	last      int32
	transport int // offset of the TCP or UDP header
	header    int // bytes of all headers
	size      int // payload of the first packet
	total     int // bytes
	count     int
	proto     uint8
	open      bool // may grow
	verified  bool // the first packet's checksums are right
	push      bool // the last packet has PSH
}

// rest is the payload of a packet after the first of its group.
type rest struct {
	payload []byte
	next    int32
}

// Writer takes what a Coalescer made: a packet in pieces, valid during the call only.
type Writer interface {
	Write(h *Header, pieces [][]byte) error
}

// Add takes one IP packet, whose header lengths have been checked to lie within it.
func (c *Coalescer) Add(packet []byte) {
	g := group{head: packet, total: len(packet), count: 1}
	flow := g.parse()
	if flow < 0 { // of whose flow it is, is not known
		clear(c.slots[:])
		c.groups = append(c.groups, g)
		return
	}
	slot := &c.slots[flow]
	if *slot != 0 {
		if old := &c.groups[*slot-1]; old.open && old.accepts(&g) {
			if !g.verify() {
				g.open = false
			} else if old.verified || old.verify() {
				old.verified = true
				c.append(old, &g)
				return
			} else {
				g.verified = true
			}
		}
	}
	c.groups = append(c.groups, g)
	*slot = int32(len(c.groups))
}

// parse finds out whether the packet may be the first of a group, and returns the hash of its flow; a negative one when
// it belongs to none. A packet of a flow that cannot be joined closes the flow's group by taking its place.
func (g *group) parse() int {
	p := g.head
	var h uint64
	switch p[0] >> 4 {
	case 4:
		if p[0]&15 != 5 || p[6]&0x3f != 0 || p[7] != 0 || int(binary.BigEndian.Uint16(p[2:])) != len(p) {
			return -1 // options, a fragment
		}
		g.transport, g.proto = 20, p[9]
		h = binary.NativeEndian.Uint64(p[12:])
	case 6:
		if len(p) < 40 || int(binary.BigEndian.Uint16(p[4:]))+40 != len(p) {
			return -1
		}
		g.transport, g.proto = 40, p[6]
		h = binary.NativeEndian.Uint64(p[16:]) ^ bits.RotateLeft64(binary.NativeEndian.Uint64(p[32:]), 32)
	default:
		return -1
	}
	t := p[g.transport:]
	switch {
	case g.proto == protoTCP && len(t) >= 20:
		g.header = g.transport + int(t[12]>>4)*4
		flags := t[13]
		g.push = flags&flagPSH != 0
		g.open = flags&^(flagPSH|flagECE) == flagACK && t[12]&15 == 0 && t[12]>>4 >= 5
	case g.proto == protoUDP && len(t) >= 8:
		g.header = g.transport + 8
		g.open = int(binary.BigEndian.Uint16(t[4:])) == len(t) && (t[6] != 0 || t[7] != 0)
	default:
		return -1
	}
	g.size = len(p) - g.header
	// A segment with PSH ends a group, so it does not begin one.
	g.open = g.open && g.size > 0 && !g.push
	h ^= uint64(binary.NativeEndian.Uint32(t)) | uint64(g.proto)<<32
	return int(h * 0x9e3779b97f4a7c15 >> 56)
}

// accepts says whether the packet of n continues the group.
func (g *group) accepts(n *group) bool {
	a, b := g.head, n.head
	if a[0] != b[0] || n.proto != g.proto || n.header != g.header || n.size <= 0 || n.size > g.size ||
		g.total+n.size > maxPacket {
		return false
	}
	if g.transport == 20 {
		id := binary.BigEndian.Uint16(a[4:]) + uint16(g.count)
		if a[1] != b[1] || id != binary.BigEndian.Uint16(b[4:]) || !bytes.Equal(a[6:10], b[6:10]) ||
			!bytes.Equal(a[12:20], b[12:20]) {
			return false
		}
	} else if !bytes.Equal(a[1:4], b[1:4]) || !bytes.Equal(a[6:40], b[6:40]) {
		return false
	}
	a, b = a[g.transport:g.header], b[g.transport:g.header]
	if !bytes.Equal(a[:4], b[:4]) {
		return false
	}
	if g.proto == protoUDP {
		return n.open && g.count < maxUDPSegments
	}
	if g.count == maxTCPSegments {
		return false
	}
	// The flags but PSH, acknowledgement, window, urgent pointer and options must not change.
	return binary.BigEndian.Uint32(b[4:]) == binary.BigEndian.Uint32(a[4:])+uint32(g.total-g.header) &&
		bytes.Equal(a[8:13], b[8:13]) && a[13] == b[13]&^flagPSH && bytes.Equal(a[14:16], b[14:16]) &&
		bytes.Equal(a[18:], b[18:])
}

// verify checks the checksums that joining replaces.
func (g *group) verify() bool {
	t := g.head[g.transport:]
	if g.transport == 20 && fold(sum(g.head[:20], 0)) != 0xffff {
		return false
	}
	return fold(sum(t, pseudo(g.head, g.proto, len(t)))) == 0xffff
}

func (c *Coalescer) append(g, n *group) {
	c.rest = append(c.rest, rest{payload: n.head[n.header:]})
	at := int32(len(c.rest))
	if g.first == 0 {
		g.first = at
	} else {
		c.rest[g.last-1].next = at
	}
	g.last = at
	g.total += n.size
	g.count++
	g.push = n.push
	g.open = n.size == g.size && !n.push
}

// Flush writes everything that was added, and forgets it. It goes on after an error and returns how many packets were
// lost by errors, with the first one.
func (c *Coalescer) Flush(w Writer) (lost int, err error) {
	for i := range c.groups {
		g := &c.groups[i]
		c.header = Header{}
		if g.count > 1 {
			c.header = g.join()
		}
		c.pieces = append(c.pieces[:0], g.head)
		for at := g.first; at != 0; at = c.rest[at-1].next {
			c.pieces = append(c.pieces, c.rest[at-1].payload)
		}
		if e := w.Write(&c.header, c.pieces); e != nil {
			lost += g.count
			if err == nil {
				err = e
			}
		}
	}
	if len(c.groups) > 0 {
		c.groups, c.rest = c.groups[:0], c.rest[:0]
		clear(c.slots[:])
	}
	return lost, err
}

// join makes the first packet's headers those of the super-packet.
func (g *group) join() Header {
	p := g.head
	h := Header{
		Flags: NeedsChecksum, GSOSize: uint16(g.size), HeaderLen: uint16(g.header), CsumStart: uint16(g.transport),
	}
	if g.transport == 20 {
		binary.BigEndian.PutUint16(p[2:], uint16(g.total))
		setIPv4Checksum(p[:20])
	} else {
		binary.BigEndian.PutUint16(p[4:], uint16(g.total-40))
	}
	t, n := p[g.transport:], g.total-g.transport
	switch {
	case g.proto == protoUDP:
		h.GSOType, h.CsumField = gsoUDP, 6
		binary.BigEndian.PutUint16(t[4:], uint16(n))
	default:
		h.GSOType, h.CsumField = gsoTCPv4, 16
		if g.transport == 40 {
			h.GSOType = gsoTCPv6
		}
		if g.push {
			t[13] |= flagPSH
		}
	}
	store(t[h.CsumField:], fold(pseudo(p, g.proto, n)))
	return h
}
