package gateway

import "encoding/binary"

// ECN codepoints, the low bits of the IPv4 TOS and the IPv6 traffic class (RFC 3168 section 5).
const (
	notECT = 0
	ect1   = 1
	ect0   = 2
	ce     = 3
)

// outerTOS is the outer header's field for an inner one: DSCP and ECN copied (RFC 6040 section 4.1, normal mode).
func outerTOS(inner uint8) uint8 { return inner }

// decapECN combines the ECN fields of the inner and outer headers (RFC 6040 section 4.2, figure 4). It is false where
// the packet must be dropped.
func decapECN(inner, outer uint8) (uint8, bool) {
	inner, outer = inner&3, outer&3
	switch {
	case inner == notECT:
		return notECT, outer != ce
	case inner == ce || outer == ce:
		return ce, true
	case outer == ect1:
		return ect1, true
	}
	return inner, true
}

// innerTOS reads the IPv4 TOS or the IPv6 traffic class.
func innerTOS(ip []byte) uint8 {
	if ip[0]>>4 == 4 {
		return ip[1]
	}
	return ip[0]<<4 | ip[1]>>4
}

// setECN writes the ECN field. An IPv4 checksum is updated and not recomputed, so that a wrong one stays wrong (RFC 1624
// equation 3).
func setECN(ip []byte, ecn uint8) {
	if ip[0]>>4 == 6 {
		ip[1] = ip[1]&^0x30 | ecn<<4
		return
	}
	before := binary.BigEndian.Uint16(ip)
	ip[1] = ip[1]&^3 | ecn
	sum := uint32(^binary.BigEndian.Uint16(ip[10:])) + uint32(^before) + uint32(binary.BigEndian.Uint16(ip))
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
}
