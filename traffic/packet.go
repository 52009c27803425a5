package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// headerSize is what a datagram carries at least, big endian:
//
//	0  magic     4
//	4  stream    4
//	8  flow      8  chosen by the caller: keeps flows that use one port after another apart
//	16 sequence  8  from 0, per stream
//	24 sent      8  Instant
const headerSize = 32

const magic = 0x70716c54 // "pqlT"

type header struct {
	stream uint32
	flow   uint64
	seq    uint64
	sent   Instant
}

func (h header) put(b []byte) {
	_ = b[headerSize-1]
	binary.BigEndian.PutUint32(b[0:], magic)
	binary.BigEndian.PutUint32(b[4:], h.stream)
	binary.BigEndian.PutUint64(b[8:], h.flow)
	binary.BigEndian.PutUint64(b[16:], h.seq)
	binary.BigEndian.PutUint64(b[24:], uint64(h.sent))
}

func parseHeader(b []byte) (header, bool) {
	if len(b) < headerSize || binary.BigEndian.Uint32(b) != magic {
		return header{}, false
	}
	return header{
		stream: binary.BigEndian.Uint32(b[4:]),
		flow:   binary.BigEndian.Uint64(b[8:]),
		seq:    binary.BigEndian.Uint64(b[16:]),
		sent:   Instant(binary.BigEndian.Uint64(b[24:])),
	}, true
}

// overhead is the bytes of IP and UDP headers before the payload of a datagram.
func overhead(a netip.Addr) int {
	if a.Unmap().Is4() {
		return 20 + 8
	}
	return 40 + 8
}

// MinFrame is the smallest frame that a UDP flow to a can have, in bytes of IP packet.
func MinFrame(a netip.Addr) int { return overhead(a) + headerSize }

// maxFrame is the largest IP packet that a UDP datagram can be, with room for every header.
const maxFrame = 65535

// FrameError says that packets of a size cannot be sent.
type FrameError struct {
	To    netip.AddrPort
	Frame int // bytes of IP packet; 0 if it is not known which
	Min   int
	Max   int // what the way carries at present
}

func (e *FrameError) Error() string {
	if e.Frame < e.Min {
		return fmt.Sprintf("udp to %v: a frame of %d bytes is too small for the headers and the sequence number; the least is %d",
			e.To, e.Frame, e.Min)
	}
	return fmt.Sprintf("udp to %v: a frame of %d bytes does not fit the way, which carries %d; use a smaller one or allow fragments",
		e.To, e.Frame, e.Max)
}

// ErrRefused says that nothing listens where a UDP source sends to.
var ErrRefused = errors.New("nobody listens there")
