package capture

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	list := func() (names []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	path := filepath.Join(dir, "x.pcapng")
	if err := os.WriteFile(path, []byte("before"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := Create(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("after")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil { // before it has its place
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "before" || !slices.Equal(list(), []string{"x.pcapng"}) {
		t.Errorf("%q, %v, %v", b, list(), err)
	}
	if f, err = Create(path, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() != 0 || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := f.Discard(); err != nil || len(list()) != 0 {
		t.Errorf("%v, %v", list(), err)
	}

	if f, err = Create(path, 3); err != nil {
		t.Fatal(err)
	}
	for range 6 {
		if _, err := f.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	want := []string{"x_00005.pcapng", "x_00006.pcapng", "x_00007.pcapng"}
	if !slices.Equal(list(), want) || filepath.Base(f.Names()[0]) != want[0] || len(f.Names()) != 3 {
		t.Errorf("%v, %v", list(), f.Names())
	}
	for _, bad := range []string{dir, filepath.Join(dir, "no", "x.pcapng"), filepath.Join(dir, "x_00005.pcapng", "y")} {
		if _, err := Create(bad, 0); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

// A file in the working directory is made there, and not where temporary files are, which may be another file system.
func TestFilesHere(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("TMPDIR", filepath.Join(dir, "elsewhere"))
	f, err := Create("x.pcapng", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Commit(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "x.pcapng")); err != nil {
		t.Error(err)
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "x.wireshark")
	sas := []SA{
		{SPI: 0x1234, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Key: bytes.Repeat([]byte{0xab}, 32), Salt: []byte{1, 2, 3, 4}},
		{SPI: 0xffffffff, Src: netip.MustParseAddr("fd00::1"), Dst: netip.MustParseAddr("fd00::2"), Key: bytes.Repeat([]byte{0}, 32), Salt: []byte{0, 0, 0, 0}},
	}
	for range 2 { // the second in the place of the first
		table, err := NewTable(dir)
		if err != nil {
			t.Fatal(err)
		}
		table.Add(sas)
		if err := table.Close(); err != nil {
			t.Fatal(err)
		}
		table.Add(sas) // which is nothing any more
		b, err := os.ReadFile(filepath.Join(dir, "esp_sa"))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
		want := []string{
			`"IPv4","10.0.0.1","10.0.0.2","0x00001234","AES-GCM with 16 octet ICV [RFC4106]","0x` + strings.Repeat("ab", 32) + `01020304","NULL",""`,
			`"IPv6","fd00::1","fd00::2","0xffffffff","AES-GCM with 16 octet ICV [RFC4106]","0x` + strings.Repeat("00", 36) + `","NULL",""`,
		}
		if len(lines) != 3 || !strings.HasPrefix(lines[0], TableMark) || !slices.Equal(lines[1:], want) {
			t.Errorf("%q", lines)
		}
		for _, name := range []string{".", "esp_sa", "preferences"} {
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %v, %v", name, info.Mode(), err)
			}
		}
	}
	table, err := NewTable(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Discard(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "preferences"), []byte("# a person's"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := NewTable(dir); !errors.Is(err, ErrForeign) {
		t.Errorf("somebody's preferences: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "preferences")); err != nil || string(b) != "# a person's" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "esp_sa")); err == nil {
		t.Error("half a table is left")
	}
}
