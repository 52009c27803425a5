package gateway

import (
	"bytes"
	"testing"

	"pqlab/ipsec/gateway/esp"
)

func TestInnerPacket(t *testing.T) {
	v4 := make([]byte, 30)
	v4[0], v4[3] = 0x45, 30
	v6 := make([]byte, 50)
	v6[0], v6[5] = 0x60, 10
	edit := func(p []byte, at int, v byte) []byte {
		p = bytes.Clone(p)
		p[at] = v
		return p
	}
	for name, c := range map[string]struct {
		inner []byte
		next  byte
		want  int // length, -1: refused
	}{
		"IPv4":                         {v4, esp.IPv4, 30},
		"IPv6":                         {v6, esp.IPv6, 50},
		"IPv4 with TFC padding":        {append(bytes.Clone(v4), 1, 2, 3), esp.IPv4, 30},
		"IPv6 with TFC padding":        {append(bytes.Clone(v6), make([]byte, 900)...), esp.IPv6, 50},
		"IPv4 as IPv6":                 {v4, esp.IPv6, -1},
		"IPv6 as IPv4":                 {v6, esp.IPv4, -1},
		"version 5":                    {edit(v4, 0, 0x55), esp.IPv4, -1},
		"empty":                        {nil, esp.IPv4, -1},
		"IPv4 cut":                     {v4[:29], esp.IPv4, -1},
		"IPv6 cut":                     {v6[:49], esp.IPv6, -1},
		"IPv6 header cut":              {v6[:39], esp.IPv6, -1},
		"IPv4 shorter than its header": {edit(v4, 3, 19), esp.IPv4, -1},
		"IPv4 header of 16":            {edit(v4, 0, 0x44), esp.IPv4, -1},
		"IPv4 header beyond the end":   {edit(v4, 0, 0x4f), esp.IPv4, -1},
	} {
		ip, _, _, ok := innerPacket(esp.Payload{Inner: c.inner, Next: c.next})
		if ok != (c.want >= 0) || ok && !bytes.Equal(ip, c.inner[:c.want]) {
			t.Errorf("%s: % x, %v", name, ip, ok)
		}
	}
}

// FuzzInnerPacket: whatever a peer with a key sends, nothing reads beyond it.
func FuzzInnerPacket(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 20, 19: 0}, byte(esp.IPv4))
	f.Add([]byte{0x60, 39: 0}, byte(esp.IPv6))
	f.Fuzz(func(t *testing.T, inner []byte, next byte) {
		ip, src, dst, ok := innerPacket(esp.Payload{Inner: inner, Next: next})
		if !ok {
			return
		}
		if len(ip) > len(inner) || !src.IsValid() || !dst.IsValid() {
			t.Fatalf("%d of %d bytes, %v, %v", len(ip), len(inner), src, dst)
		}
		ecn := innerTOS(ip) & 3
		setECN(ip, ecn^3)
		if innerTOS(ip)&3 != ecn^3 {
			t.Fatal("ECN was not set")
		}
		icmpTooBig(bytes.Clone(ip), 1280)
	})
}
