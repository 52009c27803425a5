package gateway

import (
	"encoding/binary"
	"pqlab/internal/offload"
)

// tooBig answers a packet that does not fit the tunnel: ICMP "fragmentation needed" (RFC 1191 section 4) or ICMPv6
// "packet too big" (RFC 4443 section 3.2), written into the port as if it came from the packet's destination, because the
// kernel would take it for spoofed with an address of the node.
//
// The kernel keeps to the MTU of the routes and so fragments or answers by itself; what comes here came between a change
// of the path MTU and the kernel's hearing of it. An IPv4 packet that may be fragmented is dropped, its next one will
// be fragmented.
func (o *outbound) tooBig(t *tunnel, packet []byte, mtu int) {
	t.drops.tooBig.Add(uint64(o.seg.Count()))
	if reply := icmpTooBig(packet, mtu); reply != nil {
		if err := o.icmp.Write(&offload.Header{}, [][]byte{reply}); err != nil {
			t.drops.send.Add(1)
		}
	}
}

// icmpTooBig makes the answer to a packet, or nil where there must be none.
func icmpTooBig(packet []byte, mtu int) []byte {
	if packet[0]>>4 == 4 {
		if packet[6]&0x40 == 0 || packet[6]&0x1f != 0 || packet[7] != 0 || icmpError(packet) {
			return nil
		}
		quote := packet[:min(len(packet), int(packet[0]&15)*4+8)]
		reply := make([]byte, 20+8+len(quote))
		reply[0], reply[8], reply[9] = 0x45, 64, 1
		binary.BigEndian.PutUint16(reply[2:], uint16(len(reply)))
		copy(reply[12:16], packet[16:20])
		copy(reply[16:20], packet[12:16])
		binary.BigEndian.PutUint16(reply[10:], offload.Checksum(reply[:20]))
		icmp := reply[20:]
		icmp[0], icmp[1] = 3, 4
		binary.BigEndian.PutUint16(icmp[6:], uint16(mtu))
		copy(icmp[8:], quote)
		binary.BigEndian.PutUint16(icmp[2:], offload.Checksum(icmp))
		return reply
	}
	if packet[24] == 0xff || icmpError(packet) {
		return nil
	}
	quote := packet[:min(len(packet), 1280-40-8)]
	reply := make([]byte, 40+8+len(quote))
	reply[0], reply[6], reply[7] = 0x60, 58, 64
	binary.BigEndian.PutUint16(reply[4:], uint16(8+len(quote)))
	copy(reply[8:24], packet[24:40])
	copy(reply[24:40], packet[8:24])
	icmp := reply[40:]
	icmp[0] = 2
	binary.BigEndian.PutUint32(icmp[4:], uint32(mtu))
	copy(icmp[8:], quote)
	binary.BigEndian.PutUint16(icmp[2:], offload.Checksum6(reply, 58))
	return reply
}

// icmpError says whether a packet is an ICMP error, which must not be answered by another (RFC 1122 section 3.2.2, RFC
// 4443 section 2.4).
func icmpError(packet []byte) bool {
	if packet[0]>>4 == 4 {
		header := int(packet[0]&15) * 4
		if packet[9] != 1 || len(packet) <= header {
			return false
		}
		kind := packet[header]
		return kind != 0 && kind != 8 // errors other than echo are as good as never this large
	}
	return packet[6] == 58 && len(packet) > 40 && packet[40] < 128
}
