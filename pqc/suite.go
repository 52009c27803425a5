package pqc

import (
	"fmt"
	"strings"

	"github.com/cloudflare/circl/kem/kyber/kyber1024"
	"github.com/cloudflare/circl/kem/kyber/kyber512"
	"github.com/cloudflare/circl/kem/kyber/kyber768"
	"github.com/cloudflare/circl/kem/mlkem/mlkem1024"
	"github.com/cloudflare/circl/kem/mlkem/mlkem512"
	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
	"github.com/cloudflare/circl/sign/dilithium/mode2"
	"github.com/cloudflare/circl/sign/dilithium/mode3"
	"github.com/cloudflare/circl/sign/dilithium/mode5"
	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"pqlab/pqc/falcon"
)

// KEMs lists every KEM, in a stable order: Kyber of round 3 of the NIST competition, then ML-KEM (FIPS 203).
func KEMs() []KEM {
	return []KEM{
		circlKEM{"kyber512", kyber512.Scheme()},
		circlKEM{"kyber768", kyber768.Scheme()},
		circlKEM{"kyber1024", kyber1024.Scheme()},
		circlKEM{"mlkem512", mlkem512.Scheme()},
		circlKEM{"mlkem768", mlkem768.Scheme()},
		circlKEM{"mlkem1024", mlkem1024.Scheme()},
	}
}

// Signatures lists every signature scheme, in a stable order: Dilithium and Falcon of round 3, then ML-DSA (FIPS 204).
func Signatures() []Signature {
	return []Signature{
		circlSignature{"dilithium2", mode2.Scheme()},
		circlSignature{"dilithium3", mode3.Scheme()},
		circlSignature{"dilithium5", mode5.Scheme()},
		falconSignature{"falcon512", falcon.Degree512},
		falconSignature{"falcon1024", falcon.Degree1024},
		circlSignature{"mldsa44", mldsa44.Scheme()},
		circlSignature{"mldsa65", mldsa65.Scheme()},
		circlSignature{"mldsa87", mldsa87.Scheme()},
	}
}

// Suite is a signature scheme and a KEM that an exchange uses together. Suites are comparable; the zero value is none.
type Suite struct {
	Signature Signature
	KEM       KEM
}

// Suites lists every combination, in a stable order.
func Suites() []Suite {
	kems, signatures := KEMs(), Signatures()
	suites := make([]Suite, 0, len(kems)*len(signatures))
	for _, s := range signatures {
		for _, k := range kems {
			suites = append(suites, Suite{s, k})
		}
	}
	return suites
}

// ParseSuite reads a suite's name, "mldsa65+mlkem768". It fails with an *UnknownError.
func ParseSuite(name string) (Suite, error) {
	signature, kem, found := strings.Cut(name, "+")
	if !found {
		known := "SIGNATURE+KEM, of " + strings.Join(names(Signatures()), ", ") + " and " + strings.Join(names(KEMs()), ", ")
		return Suite{}, &UnknownError{Kind: "suite", Name: name, Known: []string{known}}
	}
	s, err := ParseSignature(signature)
	if err != nil {
		return Suite{}, err
	}
	k, err := ParseKEM(kem)
	if err != nil {
		return Suite{}, err
	}
	return Suite{s, k}, nil
}

// ParseKEM finds a KEM by its name. It fails with an *UnknownError.
func ParseKEM(name string) (KEM, error) { return find("KEM", KEMs(), name) }

// ParseSignature finds a signature scheme by its name. It fails with an *UnknownError.
func ParseSignature(name string) (Signature, error) { return find("signature", Signatures(), name) }

func find[T interface{ Name() string }](kind string, all []T, name string) (T, error) {
	for _, one := range all {
		if one.Name() == name {
			return one, nil
		}
	}
	var none T
	return none, &UnknownError{Kind: kind, Name: name, Known: names(all)}
}

func names[T interface{ Name() string }](all []T) (out []string) {
	for _, one := range all {
		out = append(out, one.Name())
	}
	return out
}

// String is the suite's name, which ParseSuite reads.
func (s Suite) String() string {
	if s.Signature == nil || s.KEM == nil {
		return "no suite"
	}
	return s.Signature.Name() + "+" + s.KEM.Name()
}

// UnknownError says that a name belongs to nothing here.
type UnknownError struct {
	Kind  string // "KEM", "signature", "suite", "combiner"
	Name  string
	Known []string // what could have been written
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("unknown %s %q; known: %s", e.Kind, e.Name, strings.Join(e.Known, ", "))
}
