package crypto

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func encode(t testing.TB, r Result) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func save(t testing.TB, dir, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, r := range []Result{sample("a device"), uncounted("another")} {
		got, err := Parse(encode(t, r))
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%v: %+v, want %+v", err, got, r)
		}
	}
}

// What no run can have written is refused.
func TestRefused(t *testing.T) {
	t.Parallel()
	operation := func(r *Result) *Operation { return &r.Schemes[3].Operations[1] }
	for name, change := range map[string]func(*Result){
		"another format":          func(r *Result) { r.Format = "pqlab run" },
		"no format":               func(r *Result) { r.Format = "" },
		"a later version":         func(r *Result) { r.FormatVersion++ },
		"an earlier version":      func(r *Result) { r.FormatVersion-- },
		"no device":               func(r *Result) { r.Device = "" },
		"a device's name":         func(r *Result) { r.Device = "a\x1b[2Jb" },
		"a device's long name":    func(r *Result) { r.Device = strings.Repeat("x", maxName+1) },
		"no iterations":           func(r *Result) { r.Iterations = 0 },
		"too many iterations":     func(r *Result) { r.Iterations = MaxIterations + 1 },
		"negative time":           func(r *Result) { r.Seconds = -1 },
		"no CPUs":                 func(r *Result) { r.Machine.CPUs = 0 },
		"no schemes":              func(r *Result) { r.Schemes = nil },
		"a scheme twice":          func(r *Result) { r.Schemes[1].Name = r.Schemes[0].Name },
		"a scheme without name":   func(r *Result) { r.Schemes[1].Name = "" },
		"another kind":            func(r *Result) { r.Schemes[1].Kind = "hash" },
		"the other kind":          func(r *Result) { r.Schemes[1].Kind = KEM },
		"a key of no size":        func(r *Result) { r.Schemes[1].PublicKey = 0 },
		"a ciphertext to sign":    func(r *Result) { r.Schemes[1].Ciphertext = 5 },
		"no ciphertext":           func(r *Result) { r.Schemes[3].Ciphertext = 0 },
		"a missing operation":     func(r *Result) { r.Schemes[1].Operations = r.Schemes[1].Operations[1:] },
		"another order":           func(r *Result) { o := r.Schemes[1].Operations; o[0], o[1] = o[1], o[0] },
		"the other side":          func(r *Result) { operation(r).Side = Client },
		"quantiles in disorder":   func(r *Result) { operation(r).NS.P10 = operation(r).NS.Median + 1 },
		"quantiles in disorder 2": func(r *Result) { operation(r).Cycles.P90 = 1 },
		"no time":                 func(r *Result) { operation(r).NS = Spread{} },
		"no cycles":               func(r *Result) { operation(r).Cycles = &Spread{} },
		"cycles are missing":      func(r *Result) { operation(r).Cycles = nil },
		"no counter":              func(r *Result) { r.Machine.Counter = nil },
		"a counter of 0 Hz":       func(r *Result) { r.Machine.Counter.Hz = 0 },
		"a core of 0 Hz":          func(r *Result) { r.Machine.Counter.CorePerTick = Spread{} },
		"more noisy than samples": func(r *Result) { o := operation(r); o.Preempted, o.Outliers, o.Noisy = 900, 900, 1001 },
		"noisy without a reason":  func(r *Result) { operation(r).Noisy = 9 },
		"a reason without noise":  func(r *Result) { operation(r).Noisy = 4 },
		"negative noise":          func(r *Result) { operation(r).Preempted = -1 },
		"negative load":           func(r *Result) { *r.Activity.StealCores = -1 },
		"negative preemption":     func(r *Result) { r.Activity.Preempted = -1 },
		"a negative overhead":     func(r *Result) { r.Overhead.NS.P10 = -1 },
		"an overhead uncounted":   func(r *Result) { r.Overhead.Cycles = nil },
	} {
		r := sample("a")
		change(&r)
		if _, err := Parse(encode(t, r)); !errors.Is(err, ErrFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := string(encode(t, sample("a")))
	for name, text := range map[string]string{
		"nothing":          "",
		"a list":           "[" + good + "]",
		"two results":      good + good,
		"a word after it":  good + "x",
		"an unknown field": strings.Replace(good, `"device"`, `"colour": "red", "device"`, 1),
		"one deep inside":  strings.Replace(good, `"preempted"`, `"lost": 1, "preempted"`, 1),
		"a text as number": strings.Replace(good, `"iterations": 1000`, `"iterations": "1000"`, 1),
		"a fraction":       strings.Replace(good, `"iterations": 1000`, `"iterations": 1000.5`, 1),
		"too long":         good + strings.Repeat(" ", maxFile),
	} {
		if text == good {
			t.Fatalf("%s: nothing changed", name)
		}
		if _, err := Parse([]byte(text)); !errors.Is(err, ErrFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for n := len(strings.TrimSpace(good)) - 1; n >= 0; n -= 23 {
		if _, err := Parse([]byte(good[:n])); !errors.Is(err, ErrFile) {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
	}
}

func TestReadAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := save(t, dir, "a.json", encode(t, sample("a"))), save(t, dir, "b.json", encode(t, uncounted("b")))
	again := save(t, dir, "again.json", encode(t, sample("a")))
	old := sample("c")
	old.FormatVersion = 0
	c := save(t, dir, "c.json", encode(t, old))

	all, err := ReadAll(b, a)
	if err != nil || len(all) != 2 || all[0].Device != "b" || all[1].Device != "a" {
		t.Errorf("%v: %+v", err, all)
	}
	for _, paths := range [][]string{{a, b, again}, {a, a}} {
		_, err = ReadAll(paths...)
		if !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), paths[0]) || !strings.Contains(err.Error(), paths[len(paths)-1]) {
			t.Errorf("%v: %v", paths, err)
		}
	}
	if _, err = ReadAll(a, c); !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), c) || strings.Contains(err.Error(), a) {
		t.Errorf("another version: %v", err)
	}
	if _, err = ReadAll(a, filepath.Join(dir, "none.json")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "none.json") {
		t.Errorf("no file: %v", err)
	}
}

// A file is replaced as a whole or not at all, and nothing else is left.
func TestReplace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "r.json")
	text := func(s string) func(io.Writer) error {
		return func(w io.Writer) error {
			_, err := io.WriteString(w, s)
			return err
		}
	}
	files := 1
	want := func(content string) {
		t.Helper()
		got, err := os.ReadFile(path)
		names, _ := os.ReadDir(dir)
		if err != nil || string(got) != content || len(names) != files {
			t.Errorf("%q, want %q, %v; there are %v", got, content, err, names)
		}
	}
	for _, s := range []string{"one", "two"} {
		if err := Replace(path, text(s)); err != nil {
			t.Fatal(err)
		}
		want(s)
	}
	err := Replace(path, func(w io.Writer) error {
		text("half")(w)
		return errBroken
	})
	if !errors.Is(err, errBroken) {
		t.Error(err)
	}
	want("two")
	link := filepath.Join(dir, "link")
	if err := os.Symlink("r.json", link); err != nil {
		t.Fatal(err)
	}
	if err := Replace(link, text("three")); err != nil {
		t.Error(err)
	}
	files = 2
	want("three")
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is %v now, %v", info.Mode(), err)
	}
	if err := Replace("/dev/null", text("gone")); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat("/dev/null"); err != nil || info.Mode()&fs.ModeDevice == 0 {
		t.Errorf("/dev/null: %v, %v", info, err)
	}
	if err := Replace(filepath.Join(dir, "none", "r.json"), text("x")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// FuzzParse: whatever the bytes are, they are refused, or they are a result that survives being written and can be shown.
func FuzzParse(f *testing.F) {
	for _, r := range []Result{sample("a"), uncounted("b")} {
		r.Schemes = r.Schemes[2:3]
		f.Add(encode(f, r))
	}
	f.Add([]byte(`{"format":"pqlab bench crypto","format_version":1}`))
	f.Add([]byte(`{"format":"pqlab bench crypto","format_version":2}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Parse(text)
		if err != nil {
			if !errors.Is(err, ErrFile) {
				t.Errorf("%v is no ErrFile", err)
			}
			return
		}
		again, err := Parse(encode(t, r))
		if err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		if again.Device != r.Device || len(again.Schemes) != len(r.Schemes) {
			t.Errorf("%+v became %+v", r, again)
		}
		show(t, Comparison{Results: []Result{r}, Unit: CoreCycles})
	})
}
