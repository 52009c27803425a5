package combine

import (
	"bytes"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/pqc"
)

func refused() {
	for _, c := range combiners() {
		type spoil func(s []source) []source
		DescribeTable("refuses secrets that hide nothing: "+c.name, func(n int, f spoil, want error) {
			key, err := combined(c.name, f(example(6, n)))
			Expect(err).To(MatchError(want))
			Expect(key).To(BeNil())
		},
			Entry("equal ones", 2, spoil(func(s []source) []source { s[1].secret = s[0].secret; return s }), pqc.ErrEqualSecrets),
			Entry("equal ones in different memory", 2, spoil(func(s []source) []source { s[1].secret = bytes.Clone(s[0].secret); return s }), pqc.ErrEqualSecrets),
			Entry("the first and the third of three equal", 3, spoil(func(s []source) []source { s[2].secret = s[0].secret; return s }), pqc.ErrEqualSecrets),
			Entry("the second and the third of three equal", 3, spoil(func(s []source) []source { s[2].secret = s[1].secret; return s }), pqc.ErrEqualSecrets),
			Entry("all zeros in the first", 2, spoil(func(s []source) []source { clear(s[0].secret); return s }), pqc.ErrZeroSecret),
			Entry("all zeros in the second", 2, spoil(func(s []source) []source { clear(s[1].secret); return s }), pqc.ErrZeroSecret),
			Entry("all zeros in the third", 3, spoil(func(s []source) []source { clear(s[2].secret); return s }), pqc.ErrZeroSecret),
			Entry("one alone", 2, spoil(func(s []source) []source { return s[:1] }), pqc.ErrSources),
			Entry("none", 2, spoil(func([]source) []source { return nil }), pqc.ErrSources),
		)
		It("refuses secrets of any length but 32 bytes: "+c.name, func() {
			for _, length := range []int{0, 16, 31, 33, 64} {
				for which := range 3 {
					s := example(7, 3)
					s[which].secret = bytes.Repeat([]byte{7}, length)
					var size *pqc.SizeError
					_, err := combined(c.name, s)
					Expect(err).To(BeAssignableToTypeOf(size), fmt.Sprintf("%d bytes in source %d", length, which))
				}
			}
		})
	}
	It("refuses three secrets of which none is equal and all cancel: xor", func() {
		s := example(8, 3)
		s[2].secret = xor(s[0].secret, s[1].secret)
		key, err := combined("xor", s)
		Expect(err).To(MatchError(pqc.ErrZeroSecret))
		Expect(key).To(BeNil())
	})
}
