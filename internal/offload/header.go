// Package offload cuts the super-packets that the kernel hands out on a virtual interface into segments, and joins
// segments into super-packets that it takes back: what a network card does as TSO, USO and GRO, after the virtio_net_hdr
// that goes with each packet (virtio specification 1.2, section 5.1.6). One system call then moves up to 64 KiB.
package offload

import (
	"encoding/binary"
	"errors"
)

// HeaderLen is the size of struct virtio_net_hdr in bytes.
const HeaderLen = 10

// Flags and GSO types of a Header.
const (
	NeedsChecksum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM

	gsoNone  = 0
	gsoTCPv4 = 1
	gsoTCPv6 = 4
	gsoUDP   = 5    // VIRTIO_NET_HDR_GSO_UDP_L4
	gsoECN   = 0x80 // the first segment alone carries CWR
)

// ErrMalformed says that a header and its packet do not fit together.
var ErrMalformed = errors.New("offload: packet does not fit its virtio_net_hdr")

// Header is struct virtio_net_hdr. Offsets count from the start of the IP packet.
type Header struct {
	Flags, GSOType       uint8
	HeaderLen            uint16 // of all headers, bytes; a hint
	GSOSize              uint16 // payload of one segment, bytes
	CsumStart, CsumField uint16 // where the sum begins, and where its field lies after that
}

// Segmented says whether the packet is to be cut.
func (h *Header) Segmented() bool { return h.GSOType != gsoNone }

// Decode reads a header as the kernel wrote it. b has HeaderLen bytes.
func (h *Header) Decode(b []byte) {
	_ = b[HeaderLen-1]
	h.Flags, h.GSOType = b[0], b[1]
	h.HeaderLen = binary.NativeEndian.Uint16(b[2:])
	h.GSOSize = binary.NativeEndian.Uint16(b[4:])
	h.CsumStart = binary.NativeEndian.Uint16(b[6:])
	h.CsumField = binary.NativeEndian.Uint16(b[8:])
}

// Encode writes a header as the kernel reads it. b has HeaderLen bytes.
func (h *Header) Encode(b []byte) {
	_ = b[HeaderLen-1]
	b[0], b[1] = h.Flags, h.GSOType
	binary.NativeEndian.PutUint16(b[2:], h.HeaderLen)
	binary.NativeEndian.PutUint16(b[4:], h.GSOSize)
	binary.NativeEndian.PutUint16(b[6:], h.CsumStart)
	binary.NativeEndian.PutUint16(b[8:], h.CsumField)
}
