package topology

import (
	"fmt"
	"slices"
	"strings"
)

// maxName is the longest name of a node, link, tunnel or flow, in bytes.
const maxName = 32

// maxInterface is IFNAMSIZ without its final zero.
const maxInterface = 15

// Signatures returns the signature schemes that a suite may name.
func Signatures() []string {
	return []string{"dilithium2", "dilithium3", "dilithium5", "falcon512", "falcon1024", "mldsa44", "mldsa65", "mldsa87"}
}

// KEMs returns the key encapsulation mechanisms that a suite may name.
func KEMs() []string {
	return []string{"kyber512", "kyber768", "kyber1024", "mlkem512", "mlkem768", "mlkem1024"}
}

// Suites returns every suite that a tunnel may name.
func Suites() []string {
	var all []string
	for _, s := range Signatures() {
		for _, k := range KEMs() {
			all = append(all, s+"+"+k)
		}
	}
	return all
}

// TLSGroups returns the TLS groups that a tunnel may offer, by their IANA names.
func TLSGroups() []string {
	return []string{"X25519", "secp256r1", "secp384r1", "secp521r1", "X25519MLKEM768", "SecP256r1MLKEM768", "SecP384r1MLKEM1024"}
}

// Profiles returns the device profiles that a node may name. Package nodes knows what they are.
func Profiles() []string {
	return []string{"bluefield-2", "bluefield-3", "jetson-nano", "jetson-orin-nano", "raspberry-pi-4", "raspberry-pi-5", "xeon"}
}

// DefaultSuite is the suite of a tunnel that names none.
const DefaultSuite = "mldsa65+mlkem768"

// What keys a tunnel.
const (
	Pqlab      = "pqlab"
	Strongswan = "strongswan"
)

func nodeKinds() []string { return []string{"client", "host", "dpu", "ap", "switch"} }
func linkKinds() []string { return []string{"ethernet", "fibre", "pcie", "wifi"} }
func families() []string  { return []string{"ipv4", "ipv6"} }
func protos() []string    { return []string{"tcp", "udp"} }
func combiners() []string { return []string{"xor", "hardened"} }
func identities() []string {
	return []string{"fresh", "pinned"}
}
func encapsulations() []string { return []string{"udp", "esp"} }
func keyings() []string        { return []string{Pqlab, Strongswan} }
func dataplanes() []string     { return []string{"auto", "gateway", "xfrm", "offload"} }

// checkName says what is wrong with the name of a node, link, tunnel or flow; nothing if it is good.
func checkName(name string) string {
	if name == "" {
		return "is empty"
	}
	if len(name) > maxName {
		return fmt.Sprintf("is longer than %d bytes", maxName)
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || i == 0) {
			return "may have only a-z, 0-9 and, not in front, -"
		}
	}
	return ""
}

// checkInterface says what is wrong with the name of an interface that joins a link.
func checkInterface(name string) string {
	if len(name) > maxInterface {
		return fmt.Sprintf("is longer than %d bytes, the most Linux takes", maxInterface)
	}
	if slices.Contains([]string{"lo", "all", "default"}, name) {
		return "is taken by the kernel"
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("-_.", rune(c))) {
			return "may have only letters, digits and, not in front, - _ ."
		}
	}
	return ""
}

// checkSuite says what is wrong with a suite.
func checkSuite(suite string) string {
	signature, kem, ok := strings.Cut(suite, "+")
	if ok && slices.Contains(Signatures(), signature) && slices.Contains(KEMs(), kem) {
		return ""
	}
	if !ok {
		return "is not a signature and a KEM joined by +, as " + DefaultSuite
	}
	if !slices.Contains(Signatures(), signature) {
		return fmt.Sprintf("names no known signature%s; known are %s", DidYouMean(signature, Signatures()), strings.Join(Signatures(), ", "))
	}
	return fmt.Sprintf("names no known KEM%s; known are %s", DidYouMean(kem, KEMs()), strings.Join(KEMs(), ", "))
}

// quote shows a text of unknown length and content in a message.
func quote(s string) string {
	if len(s) > 80 {
		return fmt.Sprintf("%.60q…", s)
	}
	return fmt.Sprintf("%q", s)
}
