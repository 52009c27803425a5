package capture

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
)

const (
	ethernetHeader = 14
	udpHeader      = 8
	// espLeast is the shortest ESP packet of AES-GCM: SPI, sequence number, IV, one word of ciphertext, ICV.
	espLeast = 4 + 4 + 8 + 4 + 16
)

// outer is where things are in an Ethernet frame that holds ESP.
type outer struct {
	ip, udp, esp int // offsets; udp is 0 without UDP
	dst          netip.Addr
	spi          uint32
}

// espOf finds ESP, also in UDP, in a frame. IPv4 options and IPv6 extension headers are not looked behind.
func espOf(b []byte) (o outer, ok bool) {
	if len(b) < ethernetHeader {
		return o, false
	}
	o.ip = ethernetHeader
	ip := b[o.ip:]
	var next byte
	var head int
	switch kind := binary.BigEndian.Uint16(b[12:]); {
	case kind == 0x0800 && len(ip) >= 20 && ip[0] == 0x45 && binary.BigEndian.Uint16(ip[6:])&0x3fff == 0:
		next, head, o.dst = ip[9], 20, netip.AddrFrom4([4]byte(ip[16:20]))
	case kind == 0x86dd && len(ip) >= 40:
		next, head, o.dst = ip[6], 40, netip.AddrFrom16([16]byte(ip[24:40]))
	default:
		return o, false
	}
	o.esp = o.ip + head
	if next == protoUDP {
		o.udp = o.esp
		o.esp += udpHeader
		if len(b) < o.esp || binary.BigEndian.Uint32(b[o.udp:]) != udpESP<<16|udpESP {
			return o, false
		}
	} else if next != protoESP {
		return o, false
	}
	if len(b) < o.esp+8 {
		return o, false
	}
	o.spi = binary.BigEndian.Uint32(b[o.esp:])
	return o, o.spi != 0 // 0 is the non-ESP marker (RFC 3948 section 2.2)
}

// cut gives the frames that the wire would carry of one that the kernel passes whole: a UDP datagram of many ESP packets
// of one tunnel, made by UDP_SEGMENT or UDP_GRO. All but the last are of one size, and where the next ones begin shows in
// them: each has to bear the SPI of the one before it and a sequence number a little higher, or, where the keys change, the
// SPI that follows, which next gives (0: none is known). What does not look like that is one packet, and nil is returned.
func cut(b []byte, next func(destination) uint32) (frames [][]byte) {
	o, ok := espOf(b)
	if !ok || o.udp == 0 {
		return nil
	}
	payload := b[o.esp:]
	if length := int(binary.BigEndian.Uint16(b[o.udp+4:])) - udpHeader; length != len(payload) {
		return nil // padded, or not whole
	}
	size := segment(payload, func(spi uint32) uint32 { return next(destination{o.dst, spi}) })
	if size == 0 {
		return nil
	}
	for i := 0; len(payload) > 0; i++ {
		n := min(size, len(payload))
		one := append(append(make([]byte, 0, o.esp+n), b[:o.esp]...), payload[:n]...)
		resize(one, o, i)
		frames = append(frames, one)
		payload = payload[n:]
	}
	return frames
}

// segment gives the size of the ESP packets in a payload, 0 if there is but one.
func segment(payload []byte, next func(spi uint32) uint32) int {
	if len(payload) < 2*espLeast {
		return 0
	}
	if size := segmentBefore(payload, payload[:4], next); size > 0 {
		return size
	}
	follows := next(binary.BigEndian.Uint32(payload)) // all but the first may be under new keys
	if follows == 0 {
		return 0
	}
	return segmentBefore(payload, binary.BigEndian.AppendUint32(nil, follows), next)
}

// segmentBefore is segment where the second packet has an SPI.
func segmentBefore(payload, spi []byte, next func(spi uint32) uint32) int {
	for size := espLeast; ; size++ {
		at := bytes.Index(payload[size:], spi)
		if at < 0 {
			return 0
		}
		if size += at; !segmented(payload[:min(len(payload), size+espLeast)], size, next) {
			continue // the bytes of an SPI by chance
		}
		if !segmented(payload, size, next) {
			return 0 // here the second packet begins, but something else follows; a multiple of the size would be wrong
		}
		return size
	}
}

// farthest is how far sequence numbers of packets that follow each other are apart, and how far new keys have come.
const farthest = 1 << 16

// segmented says whether packets of size follow each other.
func segmented(payload []byte, size int, next func(spi uint32) uint32) bool {
	spi, seq := binary.BigEndian.Uint32(payload), binary.BigEndian.Uint32(payload[4:])
	at := size
	for ; at < len(payload); at += size {
		if len(payload)-at < espLeast {
			return false
		}
		nowSPI, now := binary.BigEndian.Uint32(payload[at:]), binary.BigEndian.Uint32(payload[at+4:])
		if nowSPI != spi {
			if nowSPI == 0 || nowSPI != next(spi) {
				return false
			}
			spi, seq = nowSPI, 0
		}
		if step := now - seq; step == 0 || step > farthest {
			return false
		}
		seq = now
	}
	return at > size
}

// resize corrects the headers of the i-th frame that was cut.
func resize(b []byte, o outer, i int) {
	ip := b[o.ip:]
	binary.BigEndian.PutUint16(b[o.udp+4:], uint16(len(b)-o.udp))
	sum := pseudo(ip)
	if o.udp-o.ip == 20 {
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		binary.BigEndian.PutUint16(ip[4:], binary.BigEndian.Uint16(ip[4:])+uint16(i))
		clear(ip[10:12])
		binary.BigEndian.PutUint16(ip[10:], fold(add(0, ip[:20])))
	} else {
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-40))
	}
	udp := b[o.udp:]
	if o.udp-o.ip == 20 && udp[6] == 0 && udp[7] == 0 {
		return // none was asked for
	}
	clear(udp[6:8])
	sum = add(sum+uint64(protoUDP)+uint64(len(udp)), udp)
	checksum := fold(sum)
	if checksum == 0 {
		checksum = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], checksum)
}

// pseudo is the sum of the addresses (RFC 768, RFC 8200 section 8.1).
func pseudo(ip []byte) uint64 {
	if ip[0]>>4 == 4 {
		return add(0, ip[12:20])
	}
	return add(0, ip[8:40])
}

// add adds to a sum (RFC 1071). The carries of 8 bytes at once come in at the other end, which is the same modulo 2^16-1.
func add(sum uint64, b []byte) uint64 {
	var carry uint64
	for ; len(b) >= 8; b = b[8:] {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), carry)
	}
	sum = sum>>32 + sum&math.MaxUint32 + carry
	for ; len(b) >= 2; b = b[2:] {
		sum += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint64(b[0]) << 8
	}
	return sum
}

func fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
