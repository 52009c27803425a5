package exchange

import (
	"bytes"
	"crypto/sha512"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"pqlab/pqc"
)

const document = "../../docs/exchange.md"

var update = flag.Bool("update", false, "write the computed parts of docs/exchange.md")

// TestDocument computes the tables and examples of docs/exchange.md and wants them there.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"sizes": sizeTable(t), "limits": limitTable(), "labels": labelTable(), "alerts": alertTable(), "proposal example": proposalExample(t), "key vector": keyVector(t),
	} {
		begin, end := fmt.Sprintf("<!-- begin %s: computed -->\n", name), fmt.Sprintf("<!-- end %s -->", name)
		before, rest, ok := strings.Cut(string(text), begin)
		got, after, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("no part %q", name)
		}
		if *update {
			text = []byte(before + begin + want + end + after)
		} else if got != want {
			t.Errorf("part %q is not what the code does; `go test ./pqc/exchange -run TestDocument -update` writes it:\n%s", name, want)
		}
	}
	if *update {
		if err := os.WriteFile(document, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// sizeTable is made of real messages and compared with the limits that the receivers enforce.
func sizeTable(t *testing.T) string {
	var b strings.Builder
	b.WriteString("| suite | offer | answer | answer, mutual |\n|---|---|---|---|\n")
	for _, s := range pqc.Suites() {
		var size [2][typeDone + 1]int
		for i, mutual := range []bool{false, true} {
			newDuo(t, s, mutual, false).messages(t, func(typ messageType, m []byte) { size[i][typ] = len(m) })
			offer, answer := headerSize+maxOfferBody(s), headerSize+maxAnswerBody(s, mutual)
			if size[i][typeOffer] > offer || size[i][typeAnswer] > answer {
				t.Errorf("%v: a message is longer than its limit", s)
			}
			if size[i][typeConfirmation] != headerSize+macSize || size[i][typeDone] != headerSize+macSize {
				t.Errorf("%v: confirmation of %d, done of %d bytes", s, size[i][typeConfirmation], size[i][typeDone])
			}
			if len(s.String()) > maxName {
				t.Errorf("%v: name too long for a proposal", s)
			}
			size[i][typeOffer], size[i][typeAnswer] = offer, answer
		}
		fmt.Fprintf(&b, "| %v | %d | %d | %d |\n", s, size[0][typeOffer], size[0][typeAnswer], size[1][typeAnswer])
	}
	return b.String()
}

func limitTable() string {
	return fmt.Sprintf(`| what | limit |
|---|---|
| tunnel's name | 1 to %d bytes of printable UTF-8 |
| name of a suite or combiner | 1 to %d bytes |
| trigger | 0 to %[2]d bytes of printable UTF-8 |
| suites in a proposal | 1 to %d |
| SPI | at least %d |
| body of a proposal | %d bytes |
| body of an offer, of an answer | what the suite gives, see the table of sizes |
| body of a confirmation, of a done | %d bytes, exactly |
| all that one side reads in an exchange, TLS included | %d bytes |
| each step (the TLS handshake, the sending or receiving of one message) | %v, unless configured |
| holding up an error to send an alert | %v |
`, maxTunnel, maxName, maxSuites, MinSPI, maxProposalBody, macSize, maxReceived, DefaultDeadline, alertPatience)
}

func labelTable() string {
	var b strings.Builder
	b.WriteString("| label | use | bytes |\n|---|---|---|\n")
	for _, l := range []struct {
		label, use string
		size       int
	}{
		{labelTLSKey, "TLS exporter without context: the TLS secret", pqc.SecretSize},
		{labelBinding, "TLS exporter without context: the channel binding", pqc.SecretSize},
		{labelDomain, "domain of the combiner", 0},
		{labelResponderSigns, "signature in an offer", 0},
		{labelInitiatorSigns, "signature in an answer", 0},
		{labelInitiatorESP, "AES-256 key and salt of the SA from initiator to responder", 36},
		{labelResponderESP, "AES-256 key and salt of the SA from responder to initiator", 36},
		{labelInitiatorAnswer, "MAC key of answer", macSize},
		{labelConfirmation, "MAC key of confirmation", macSize},
		{labelDone, "MAC key of done", macSize},
	} {
		size := ""
		if l.size > 0 {
			size = fmt.Sprint(l.size)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", l.label, l.use, size)
	}
	return b.String()
}

func alertTable() string {
	var b strings.Builder
	b.WriteString("| code | alert |\n|---|---|\n")
	for a := Busy; a <= Internal; a++ {
		fmt.Fprintf(&b, "| %d | %v |\n", uint8(a), a)
	}
	return b.String()
}

// proposalExample also has to be decodable.
func proposalExample(t *testing.T) string {
	m := proposal{
		tunnel: "t1", suites: []string{"mldsa65+mlkem768", "dilithium3+kyber768"}, combiner: "xor", mutual: true, spi: 0x1001, trigger: "blocks", replaces: 0x1000,
	}
	for i := range m.nonce {
		m.nonce[i] = byte(i)
	}
	message, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	var back proposal
	if err := back.decode(message[headerSize:]); err != nil {
		t.Fatal(err)
	}
	return hexBlock("", message)
}

// keyVector fixes the derivation of the keys.
func keyVector(t *testing.T) string {
	key := make([]byte, pqc.SecretSize)
	for i := range key {
		key[i] = byte(i)
	}
	h := sha512.Sum384([]byte("transcript"))
	s, err := derive(key, h)
	if err != nil {
		t.Fatal(err)
	}
	return hexBlock("combined key", key) + hexBlock("transcript hash", h[:]) + hexBlock("initiator to responder, key and salt", s.initiator[:]) +
		hexBlock("responder to initiator, key and salt", s.responder[:]) + hexBlock("MAC key of answer", s.answer[:]) +
		hexBlock("MAC key of confirmation", s.confirmation[:]) + hexBlock("MAC key of done", s.done[:])
}

// hexBlock is indented code with 32 bytes a line.
func hexBlock(title string, b []byte) string {
	var out bytes.Buffer
	if title != "" {
		fmt.Fprintf(&out, "    %s:\n", title)
	}
	for len(b) > 0 {
		n := min(32, len(b))
		fmt.Fprintf(&out, "    %x\n", b[:n])
		b = b[n:]
	}
	return out.String()
}
