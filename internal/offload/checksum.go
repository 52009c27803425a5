package offload

import (
	"encoding/binary"
	"math/bits"
)

// Internet checksums (RFC 1071) are summed in the machine's byte order, 8 bytes at a time: the one's complement sum does
// not depend on byte order as long as it is stored as it was loaded.

// sum adds b to acc. Every piece of a sum but the last must have an even length.
func sum(b []byte, acc uint64) uint64 {
	var carry uint64
	for len(b) >= 64 {
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b), 0)
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b[8:]), carry)
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b[16:]), carry)
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b[24:]), carry)
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b[32:]), carry)
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b[40:]), carry)
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b[48:]), carry)
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b[56:]), carry)
		acc, carry = bits.Add64(acc, 0, carry)
		acc += carry
		b = b[64:]
	}
	for len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b), 0)
		acc += carry
		b = b[8:]
	}
	if len(b) > 0 {
		var last [8]byte
		copy(last[:], b)
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(last[:]), 0)
		acc += carry
	}
	return acc
}

// fold reduces a sum to 16 bits.
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return uint16(acc)
}

// store writes a folded sum or checksum in the order in which sums are loaded.
func store(b []byte, v uint16) { binary.NativeEndian.PutUint16(b, v) }

// word is v, a number of the protocol, as sum would have loaded it.
func word(v uint16) uint64 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return uint64(binary.NativeEndian.Uint16(b[:]))
}

// pseudo is the sum of a pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1) for n bytes of protocol proto in the
// IP packet ip.
func pseudo(ip []byte, proto uint8, n int) uint64 {
	if ip[0]>>4 == 4 {
		return sum(ip[12:20], word(uint16(n))+word(uint16(proto)))
	}
	return sum(ip[8:40], word(uint16(n))+word(uint16(proto)))
}

// setIPv4Checksum computes the checksum of an IPv4 header.
func setIPv4Checksum(header []byte) {
	store(header[10:], 0)
	store(header[10:], ^fold(sum(header, 0)))
}

// Checksum is the Internet checksum of b, whose own field is zero.
func Checksum(b []byte) uint16 { return order(^fold(sum(b, 0))) }

// Checksum6 is the checksum of what follows the header of an IPv6 packet, with the pseudo header for protocol proto.
func Checksum6(packet []byte, proto uint8) uint16 {
	return order(^fold(sum(packet[40:], pseudo(packet, proto, len(packet)-40))))
}

// order turns a folded sum into the number that the protocol means.
func order(v uint16) uint16 {
	var b [2]byte
	store(b[:], v)
	return binary.BigEndian.Uint16(b[:])
}
