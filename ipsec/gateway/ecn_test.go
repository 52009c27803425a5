package gateway

import (
	"bytes"
	"net"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// TestDecapECN is figure 4 of RFC 6040.
func TestDecapECN(t *testing.T) {
	const drop = 4
	for inner, row := range map[uint8]map[uint8]uint8{
		notECT: {notECT: notECT, ect0: notECT, ect1: notECT, ce: drop},
		ect0:   {notECT: ect0, ect0: ect0, ect1: ect1, ce: ce},
		ect1:   {notECT: ect1, ect0: ect1, ect1: ect1, ce: ce},
		ce:     {notECT: ce, ect0: ce, ect1: ce, ce: ce},
	} {
		for outer, want := range row {
			for _, dscp := range []uint8{0, 0xfc} {
				got, ok := decapECN(inner|dscp, outer|dscp)
				if !ok {
					got = drop
				}
				if got != want {
					t.Errorf("inner %d, outer %d: %d, want %d", inner, outer, got, want)
				}
			}
		}
	}
}

// TestSetECN compares with packets that are made with the field as it shall be.
func TestSetECN(t *testing.T) {
	make4 := func(tos uint8, id uint16) []byte {
		b := gopacket.NewSerializeBuffer()
		ip := &layers.IPv4{Version: 4, IHL: 5, TOS: tos, TTL: 64, Id: id, SrcIP: net.IP{10, 0, 0, 1}, DstIP: net.IP{10, 0, 0, 2}}
		if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{ComputeChecksums: true, FixLengths: true}, ip); err != nil {
			t.Fatal(err)
		}
		return bytes.Clone(b.Bytes())
	}
	make6 := func(tos uint8) []byte {
		b := gopacket.NewSerializeBuffer()
		ip := &layers.IPv6{Version: 6, TrafficClass: tos, FlowLabel: 0xfffff, SrcIP: net.ParseIP("fd00::1"), DstIP: net.ParseIP("fd00::2")}
		if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{}, ip); err != nil {
			t.Fatal(err)
		}
		return bytes.Clone(b.Bytes())
	}
	for tos := range 256 {
		for ecn := range uint8(4) {
			after := uint8(tos)&^3 | ecn
			for id := range 200 {
				got := make4(uint8(tos), uint16(id*331))
				setECN(got, ecn)
				if want := make4(after, uint16(id*331)); !bytes.Equal(got, want) {
					t.Fatalf("TOS %#x to %d:\n% x, want\n% x", tos, ecn, got, want)
				}
			}
			got := make6(uint8(tos))
			if innerTOS(got) != uint8(tos) {
				t.Fatalf("TOS %#x is read as %#x", tos, innerTOS(got))
			}
			setECN(got, ecn)
			if want := make6(after); !bytes.Equal(got, want) {
				t.Fatalf("traffic class %#x to %d:\n% x, want\n% x", tos, ecn, got, want)
			}
		}
	}
	broken := make4(0, 7)
	broken[10] ^= 0x55
	setECN(broken, ce)
	if want := make4(ce, 7); bytes.Equal(broken[10:12], want[10:12]) {
		t.Error("a wrong checksum became right")
	}
}
