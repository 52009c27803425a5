package falcon

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"testing"
)

// hexBytes are in hexadecimal in JSON.
type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(b)), nil }

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

// nobleRequest and nobleAnswer are what noble/falcon.mjs reads and writes.
type nobleRequest struct {
	Do        string   `json:"do"`
	Degree    Degree   `json:"degree"`
	Padded    bool     `json:"padded,omitempty"`
	Seed      hexBytes `json:"seed,omitempty"`
	PublicKey hexBytes `json:"publicKey,omitempty"`
	SecretKey hexBytes `json:"secretKey,omitempty"`
	Message   hexBytes `json:"message,omitempty"`
	Signature hexBytes `json:"signature,omitempty"`
}

type nobleAnswer struct {
	PublicKey hexBytes `json:"publicKey"`
	SecretKey hexBytes `json:"secretKey"`
	Signature hexBytes `json:"signature"`
	Valid     *bool    `json:"valid"`
}

// startNoble starts the other implementation and returns what asks it.
func startNoble(t *testing.T) func(nobleRequest) nobleAnswer {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("skipped: node is not on this machine, and @noble/post-quantum is JavaScript")
	}
	if _, err := os.Stat("noble/node_modules/@noble/post-quantum"); errors.Is(err, fs.ErrNotExist) {
		t.Skip("skipped: @noble/post-quantum is not installed; `make test` does that, and so does `npm ci --ignore-scripts --prefix pqc/falcon/noble`")
	}
	command := exec.Command(node, "falcon.mjs")
	command.Dir = "noble"
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := command.Wait(); err != nil {
			t.Errorf("node falcon.mjs: %v", err)
		}
	})
	requests, answers := json.NewEncoder(in), json.NewDecoder(out)
	return func(r nobleRequest) (a nobleAnswer) {
		t.Helper()
		if err := requests.Encode(r); err != nil {
			t.Fatal(err)
		}
		if err := answers.Decode(&a); err != nil {
			t.Fatalf("noble does not %s: %v", r.Do, err)
		}
		return a
	}
}

// TestNoble lets @noble/post-quantum verify our signatures under our keys and sign with our keys, and the other way round, in
// both forms.
func TestNoble(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		noble := startNoble(t)
		seed := bytes.Repeat([]byte{byte(d.logn())}, 48)
		ours, err := generateKey(d, shake(seed))
		if err != nil {
			t.Fatal(err)
		}
		ourSecret, ourPublic := ours.Bytes(), ours.PublicKey().Bytes()
		made := noble(nobleRequest{Do: "keygen", Degree: d, Seed: seed})
		if !bytes.Equal(made.SecretKey, ourSecret) || !bytes.Equal(made.PublicKey, ourPublic) {
			t.Error("the same seed gives us and noble different keys")
		}
		if a := noble(nobleRequest{Do: "publicKey", Degree: d, SecretKey: ourSecret}); !bytes.Equal(a.PublicKey, ourPublic) {
			t.Error("noble computes another public key")
		}
		seed[0]++
		theirs := noble(nobleRequest{Do: "keygen", Degree: d, Seed: seed})
		imported, err := NewPrivateKey(d, theirs.SecretKey)
		if err != nil {
			t.Fatalf("noble's private key: %v", err)
		}
		if !bytes.Equal(imported.PublicKey().Bytes(), theirs.PublicKey) || !bytes.Equal(imported.Bytes(), theirs.SecretKey) {
			t.Error("noble's keys changed")
		}

		for _, key := range []*PrivateKey{ours, imported} {
			secret, public := key.Bytes(), key.PublicKey().Bytes()
			for _, message := range [][]byte{nil, []byte("m"), bytes.Repeat([]byte{0xa5}, 5000)} {
				for _, form := range []struct {
					padded        bool
					sign          func([]byte) ([]byte, error)
					verify, other func(message, signature []byte) error
				}{
					{true, key.Sign, key.PublicKey().Verify, key.PublicKey().VerifyUnpadded},
					{false, key.SignUnpadded, key.PublicKey().VerifyUnpadded, key.PublicKey().Verify},
				} {
					signature, err := form.sign(message)
					if err != nil {
						t.Fatal(err)
					}
					verify := nobleRequest{Do: "verify", Degree: d, Padded: form.padded, PublicKey: public, Message: message, Signature: signature}
					if a := noble(verify); a.Valid == nil || !*a.Valid {
						t.Errorf("noble refuses our signature (padded: %v)", form.padded)
					}
					verify.Message = append([]byte{1}, message...)
					if a := noble(verify); a.Valid == nil || *a.Valid {
						t.Errorf("noble verifies anything (padded: %v)", form.padded)
					}
					a := noble(nobleRequest{Do: "sign", Degree: d, Padded: form.padded, SecretKey: secret, Message: message})
					if err := form.verify(message, a.Signature); err != nil {
						t.Errorf("noble's signature (padded: %v): %v", form.padded, err)
					}
					if err := form.other(message, a.Signature); !errors.Is(err, ErrSignature) && len(a.Signature) != d.SignatureSize() {
						t.Errorf("noble's signature in the other form (padded: %v): %v", form.padded, err)
					}
				}
			}
		}
	})
}
