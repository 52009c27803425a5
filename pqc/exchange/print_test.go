package exchange_test

import (
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"reflect"
	"strings"
	"testing"

	"pqlab/pqc"
	"pqlab/pqc/exchange"
)

// TestSecretsDoNotPrint gives every exported type of the package secrets wherever it can hold bytes, and prints it. A type
// that is added has to be added here.
func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	key := ed25519.NewKeyFromSeed([]byte(strings.Repeat("\xab", ed25519.SeedSize)))
	pinned := &exchange.Pinned{Own: leaky{Secret: secretBytes()}, Peer: nil}
	endpoint := exchange.Endpoint{Certificate: tls.Certificate{PrivateKey: key}}
	config := exchange.Config{Suites: anySuite(t), Combiner: leakyCombiner{Secret: secretBytes()}, Pinned: pinned}
	keys := exchange.Keys{SPI: 0x1001, Key: [32]byte(secretBytes()), Salt: [4]byte(secretBytes())}
	values := map[string]any{
		"Endpoint": endpoint, "Config": config, "Pinned": *pinned, "Keys": keys,
		"Session": &exchange.Session{In: keys, Out: keys, Suite: anySuite(t)[0]},
		"Secrets": exchange.Secrets{Sources: []pqc.Source{{Name: "tls", Secret: secretBytes()}}},
		// These hold none.
		"Pin": nil, "Peer": nil, "Proposal": nil, "Hello": nil, "Timings": nil, "Traffic": nil, "Alert": nil, "Error": nil, "Encapsulation": nil,
		"Accept": nil, "Lookup": nil,
	}
	exported := map[string]bool{}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name := f.Name(); strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			tree, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(tree, func(n ast.Node) bool {
				if spec, ok := n.(*ast.TypeSpec); ok && spec.Name.IsExported() {
					exported[spec.Name.Name] = true
				}
				return true
			})
		}
	}
	for name := range maps.Keys(exported) {
		if _, known := values[name]; !known {
			t.Errorf("%s is not looked at", name)
		}
	}
	for name, v := range values {
		if !exported[name] {
			t.Errorf("there is no %s", name)
		}
		if v == nil {
			continue
		}
		pointer := reflect.ValueOf(v)
		if pointer.Kind() != reflect.Pointer {
			pointer = reflect.New(reflect.TypeOf(v))
			pointer.Elem().Set(reflect.ValueOf(v))
		}
		slice := reflect.MakeSlice(reflect.SliceOf(pointer.Elem().Type()), 1, 1)
		slice.Index(0).Set(pointer.Elem())
		for _, v := range []any{
			pointer.Interface(), pointer.Elem().Interface(), slice.Interface(), struct{ In any }{pointer.Elem().Interface()},
			map[string]any{"x": pointer.Interface()},
		} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U"} {
				if out := fmt.Sprintf(verb, v); containsSecret(out) {
					t.Errorf("%s of %T prints a key: %s", verb, v, out)
				}
			}
			if out, err := json.Marshal(v); err != nil || containsSecret(string(out)) {
				t.Errorf("JSON of %T: %s, %v", v, out, err)
			}
		}
	}
}

func secretBytes() []byte { return []byte(strings.Repeat("\xab", 32)) }

// containsSecret finds 0xab 0xab in the ways that fmt and encoding/json write bytes.
func containsSecret(out string) bool {
	for _, s := range []string{
		"abab", "ABAB", "0xab, 0xab", "171 171", "171,171", "253 253", "10101011 10101011", "U+00AB U+00AB", "\u00ab \u00ab",
		"\xab\xab", `\xab\xab`, "q6ur",
	} {
		if strings.Contains(out, s) {
			return true
		}
	}
	return false
}

// leaky is a signature key of somebody who has not thought of printing.
type leaky struct {
	pqc.SigningKey `json:"-"`
	Secret         []byte
}

type leakyCombiner struct {
	pqc.XOR
	Secret []byte
}
