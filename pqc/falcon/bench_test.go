package falcon

import (
	"fmt"
	"testing"
)

func benchEach(b *testing.B, bench func(b *testing.B, d Degree)) {
	for _, d := range degrees {
		b.Run(fmt.Sprint(int(d)), func(b *testing.B) {
			b.ReportAllocs()
			bench(b, d)
		})
	}
}

func BenchmarkGenerateKey(b *testing.B) {
	benchEach(b, func(b *testing.B, d Degree) {
		for b.Loop() {
			if _, err := GenerateKey(d); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkSign(b *testing.B) {
	benchEach(b, func(b *testing.B, d Degree) {
		key, err := NewPrivateKey(d, vectors(b, d)[0].sk)
		if err != nil {
			b.Fatal(err)
		}
		message := make([]byte, 64)
		for b.Loop() {
			if _, err := key.Sign(message); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	benchEach(b, func(b *testing.B, d Degree) {
		v := vectors(b, d)[0]
		key, err := NewPublicKey(d, v.pk)
		if err != nil {
			b.Fatal(err)
		}
		signature := v.signature(b, d)
		for b.Loop() {
			if err := key.VerifyUnpadded(v.message, signature); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkNewPublicKey(b *testing.B) {
	benchEach(b, func(b *testing.B, d Degree) {
		encoded := vectors(b, d)[0].pk
		for b.Loop() {
			if _, err := NewPublicKey(d, encoded); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkNewPrivateKey(b *testing.B) {
	benchEach(b, func(b *testing.B, d Degree) {
		encoded := vectors(b, d)[0].sk
		for b.Loop() {
			if _, err := NewPrivateKey(d, encoded); err != nil {
				b.Fatal(err)
			}
		}
	})
}
