package pqc

import "testing"

// The peer's keys arrive as bytes, so what they are used for is measured from bytes too.
func BenchmarkKEM(b *testing.B) {
	for _, k := range KEMs() {
		d := newDecapsulationKey(b, k)
		public := d.EncapsulationKey()
		ciphertext, _ := encapsulate(b, k, public)
		b.Run(k.Name()+"/keygen", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				newDecapsulationKey(b, k)
			}
		})
		b.Run(k.Name()+"/encaps", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				encapsulate(b, k, public)
			}
		})
		b.Run(k.Name()+"/decaps", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				decapsulate(b, d, ciphertext)
			}
		})
	}
}

func BenchmarkSignature(b *testing.B) {
	message := make([]byte, 80)
	for _, s := range Signatures() {
		key, err := s.GenerateKey()
		if err != nil {
			b.Fatal(err)
		}
		signature, err := key.Sign(message)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(s.Name()+"/keygen", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.GenerateKey(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(s.Name()+"/sign", func(b *testing.B) {
			b.ReportAllocs()
			for i := byte(0); b.Loop(); i++ {
				message[0] = i // signing times depend on the message
				if _, err := key.Sign(message); err != nil {
					b.Fatal(err)
				}
			}
		})
		message[0] = 0
		b.Run(s.Name()+"/verify", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				verify(b, s, key.PublicKey(), message, signature)
			}
		})
	}
}
