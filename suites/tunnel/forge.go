package tunnel

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/suites/testlab"
)

// forge seals an ESP packet from the words of RFC 4303 and RFC 4106, by nothing of the product: with the keys that a
// revealing lab tells, a spec can send what no gateway would.
func forge(sa agent.InstalledSA, seq uint64, plain []byte) []byte {
	GinkgoHelper()
	block, err := aes.NewCipher(sa.Key)
	Expect(err).NotTo(HaveOccurred())
	gcm, err := cipher.NewGCM(block)
	Expect(err).NotTo(HaveOccurred())
	iv := binary.BigEndian.AppendUint64(nil, ^seq) // any that the gateway has not used
	header := binary.BigEndian.AppendUint32(nil, sa.SPI)
	aad := binary.BigEndian.AppendUint64(header, seq) // all 64 bits, of which the packet has the low ones
	packet := binary.BigEndian.AppendUint32(header[:4:4], uint32(seq))
	packet = append(packet, iv...)
	return gcm.Seal(packet, append(append([]byte{}, sa.Salt...), iv...), plain, aad)
}

// The next headers of tunnel mode, and that of a dummy (RFC 4303 section 2.6).
const (
	nextIPv4 = 4
	nextIPv6 = 41
	nextNone = 59
)

// padded adds padding and trailer (RFC 4303 section 2.4).
func padded(inner []byte, next byte) []byte {
	plain := append([]byte{}, inner...)
	pad := byte(0)
	for (len(plain)+2)%4 != 0 {
		pad++
		plain = append(plain, pad)
	}
	return append(plain, pad, next)
}

// room is the largest inner packet that fits an outer one of mtu bytes.
func room(o testlab.Carriage, mtu int) int {
	n := mtu
	for overhead(o)+testlab.SealedSize(n) > mtu {
		n--
	}
	return n
}

// held sends from h1 to h2 what d1 seals and d2 has never seen.
func (r *rig) held() testlab.Held {
	return testlab.Held{Link: fibreLink, Node: "d1", From: r.tunnel.Plan.OuterA}
}
