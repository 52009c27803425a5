package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pqlab/bench/crypto"
	"pqlab/pqc"
)

// entries are the names in a directory, hidden ones too.
func entries(t *testing.T, dir string) []string {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// inDir runs pqlab in a directory.
func inDir(t *testing.T, dir string, args ...string) result {
	t.Helper()
	c := command(t, args...)
	c.Dir = dir
	return finish(t, c)
}

// Two runs become a figure: what is printed is what is in the files, and nothing else is made.
func TestBenchCrypto(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := inDir(t, dir, "bench", "crypto", "--iterations", "3", "--schemes", "dilithium2,kyber512,kyber768", "--device", "first", "--out", "a.json", "--json")
	if r.code != exitOK || r.err != "" {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
	a, err := crypto.Read(filepath.Join(dir, "a.json"))
	if err != nil {
		t.Fatal(err)
	}
	printed, err := crypto.Parse([]byte(r.out))
	if err != nil || printed.Device != "first" || a.Device != "first" || !printed.Started.Equal(a.Started) || len(a.Schemes) != 3 || a.Iterations != 3 {
		t.Errorf("%v; printed %+v, written %+v", err, printed, a)
	}

	r = inDir(t, dir, "bench", "crypto", "--iterations", "3", "--schemes", "kyber512", "--device", "second", "--out", "b.json", "--figure", "one")
	if r.code != exitOK || r.err != "" {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
	for _, o := range crypto.Operations(crypto.KEM) {
		if !strings.Contains(r.out, o) {
			t.Errorf("no %s in %s", o, r.out)
		}
	}
	if strings.Contains(r.out, "dilithium") {
		t.Errorf("more than was asked for: %s", r.out)
	}

	r = inDir(t, dir, "bench", "crypto", "--merge", "a.json", "b.json")
	if r.code != exitOK || r.err != "" || !strings.Contains(r.out, "first") || !strings.Contains(r.out, "second") {
		t.Errorf("exit status %d, %s%s", r.code, r.out, r.err)
	}
	r = inDir(t, dir, "bench", "crypto", "--merge", "b.json", "a.json", "--json", "--unit", "ns", "--figure", "other")
	both := parse[[]struct{ Device string }](t, r.out)
	if r.code != exitOK || r.err != "" || len(both) != 2 || both[0].Device != "second" || both[1].Device != "first" {
		t.Errorf("exit status %d, %+v, %s", r.code, both, r.err)
	}
	want := []string{"a.json", "b.json", "crypto.html", "crypto.svg", "one.html", "one.svg", "other.html", "other.svg"}
	if got := entries(t, dir); !slices.Equal(got, want) {
		t.Errorf("made %v", got)
	}
	for _, f := range want[2:] {
		text, err := os.ReadFile(filepath.Join(dir, f))
		bars := bytes.Count(text, []byte(`class="bar `))
		if expected := map[bool]int{true: 2, false: 2 * (3 + 1)}[strings.HasPrefix(f, "one")]; err != nil || bars != expected {
			t.Errorf("%s: %d bars, want %d, %v", f, bars, expected, err)
		}
	}
}

// Every scheme that there is can be asked for, and no scheme is left out if none is named.
func TestBenchCryptoSchemes(t *testing.T) {
	t.Parallel()
	var want, got []string
	for _, s := range pqc.Signatures() {
		want = append(want, s.Name())
	}
	for _, k := range pqc.KEMs() {
		want = append(want, k.Name())
	}
	r := pqlab(t, "bench", "crypto", "--iterations", "1", "--json")
	for _, s := range parse[crypto.Result](t, r.out).Schemes {
		got = append(got, s.Name)
	}
	if r.code != exitOK || !slices.Equal(got, want) {
		t.Errorf("exit status %d, %v, want %v: %s", r.code, got, want, r.err)
	}
}

// What is wrong is told before anything is measured or written.
func TestBenchCryptoRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := inDir(t, dir, "bench", "crypto", "--iterations", "1", "--schemes", "kyber512", "--device", "x", "--json")
	if r.code != exitOK {
		t.Fatal(r.err)
	}
	put("a.json", r.out)
	put("same.json", r.out)
	put("old.json", strings.Replace(r.out, `"format_version": 1`, `"format_version": 0`, 1))
	put("other.json", `{"topology": "pair"}`)
	put("half.json", r.out[:len(r.out)/2])
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	before := entries(t, dir)
	for _, c := range []struct{ args, names string }{
		{"--iterations 0", "--iterations"},
		{"--iterations -1", "--iterations"},
		{"--iterations 1000001", "--iterations"},
		{"--iterations many", "--iterations"},
		{"--schemes rsa", "--schemes"},
		{"--schemes kyber512,rsa", `"rsa"`},
		{"--schemes=", "--schemes"},
		{"--device=a\x01b", "--device"},
		{"--out none/a.json", "--out"},
		{"--out d", "--out"},
		{"--figure none/f", "--figure"},
		{"--unit seconds", "--unit"},
		{"a.json", "crypto --help"},
		{"--merge", "crypto --help"},
		{"--merge a.json --iterations 5", "--iterations"},
		{"--merge a.json --out b.json", "--out"},
		{"--merge a.json --device y", "--device"},
		{"--merge a.json --schemes kyber512", "--schemes"},
		{"--merge a.json same.json", "same.json"},
		{"--merge a.json a.json", "a.json"},
		{"--merge a.json old.json", "old.json"},
		{"--merge other.json", "other.json"},
		{"--merge half.json", "half.json"},
		{"--merge none.json", "none.json"},
		{"--merge d", "d"},
		{"--merge a.json --figure none/f", "--figure"},
	} {
		r := inDir(t, dir, append([]string{"bench", "crypto"}, strings.Fields(c.args)...)...)
		if r.code != exitUsage || r.out != "" || !strings.Contains(r.err, c.names) || strings.Contains(r.err, "strconv") {
			t.Errorf("%s: exit status %d, %q, want %q", c.args, r.code, r.err+r.out, c.names)
		}
		if got := entries(t, dir); !slices.Equal(got, before) {
			t.Fatalf("%s: made %v", c.args, got)
		}
	}
}

// On a terminal there is a bar that moves, on one line; Ctrl-C ends it at once, and no file is begun.
func TestBenchCryptoCtrlC(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, shown, keys := onTerminal(t, "bench", "crypto", "--iterations", "50000", "--schemes", "kyber1024", "--out", filepath.Join(dir, "a.json"), "--figure", filepath.Join(dir, "f"))
	until(t, "the bar moves", func() bool {
		text := shown.String()
		return strings.Contains(text, "0 %") && strings.Contains(text, "1 %") && strings.Contains(text, "left")
	})
	if text := shown.String(); strings.Contains(text, "\n") {
		t.Errorf("progress takes more than a line: %q", text)
	}
	if _, err := keys.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	if got := code(t, c.Wait()); got != exitInterrupted {
		t.Errorf("exit status %d, want %d", got, exitInterrupted)
	}
	if made := entries(t, dir); len(made) > 0 {
		t.Errorf("made %v", made)
	}
}

func TestBar(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]string{
		"[------------------------]   0 %  a, trying how long it takes": bar("a", 0, -1),
		"[############------------]  50 %  b, 1m10s left":               bar("b", 0.5, 70*time.Second),
		"[########################] 100 %  c, 0s left":                  bar("c", 1, 0),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
