package kernel

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// module is an ELF file that has nothing but what a module says of itself.
func module(modinfo ...string) []byte {
	info := strings.Join(modinfo, "\x00") + "\x00"
	const names = "\x00.modinfo\x00.shstrtab\x00"
	var b bytes.Buffer
	header := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1,
		Shoff: uint64(64 + len(info) + len(names)), Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2,
	}
	_ = binary.Write(&b, binary.LittleEndian, header)
	b.WriteString(info)
	b.WriteString(names)
	for _, s := range []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: uint64(len(info)), Addralign: 1},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + len(info)), Size: uint64(len(names)), Addralign: 1},
	} {
		_ = binary.Write(&b, binary.LittleEndian, s)
	}
	return b.Bytes()
}

// tree writes files below a new directory.
func tree(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// someModules are of every kind: compressed and not, in directories that are unpacked and others, with dependencies of
// both sorts, aliases of hardware and of the kernel's own.
func someModules(t testing.TB) string {
	return tree(t, map[string][]byte{
		"kernel/net/ipv4/esp4.ko.gz":         gzipped(module("license=GPL", "alias=xfrm-type-2-50", "depends=xfrm_algo", "softdep=pre: seqiv no-such post: echainiv")),
		"kernel/net/xfrm/xfrm-algo.ko.zst":   zstandard(module("depends=")),
		"kernel/crypto/seqiv.ko":             module("depends=geniv", "alias=crypto-seqiv"),
		"kernel/crypto/geniv.ko":             module("alias=crypto-geniv*"),
		"kernel/crypto/echainiv.ko":          module("depends=geniv"),
		"kernel/drivers/net/tun.ko.gz":       gzipped(module("alias=devname:net/tun", "alias=char-major-10-200")),
		"kernel/drivers/net/card/card.ko.gz": gzipped(module("alias=pci:v00008086d*", "depends=cardlib")),
		"kernel/drivers/net/card/cardlib.ko": module(),
		"kernel/drivers/lib/used.ko":         module("alias=fs-used"),
		"kernel/sound/horn.ko":               module("alias=pci:v1"),
		"modules.builtin":                    []byte("kernel/crypto/ctr.ko\nkernel/drivers/virtio/virtio-pci.ko\n"),
		"modules.order":                      []byte("kernel/crypto/seqiv.ko\n"),
	})
}

func indexed(t testing.TB) *Modules {
	t.Helper()
	dir := someModules(t)
	if err := depmod(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	m, err := ReadModules(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func base(files []string) string {
	var names []string
	for _, f := range files {
		names = append(names, moduleName(f))
	}
	return strings.Join(names, " ")
}

func TestResolve(t *testing.T) {
	t.Parallel()
	whole := indexed(t)
	dir := t.TempDir()
	for name, text := range whole.Small().Index() {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	small, err := ReadModules(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		names, want string
		hardware    bool // not in the small index
	}{
		{"esp4", "geniv seqiv xfrm_algo esp4", false},
		{"xfrm-type-2-50", "geniv seqiv xfrm_algo esp4", false},
		{"echainiv esp4 seqiv", "geniv echainiv seqiv xfrm_algo esp4", false},
		{"xfrm_algo xfrm-algo", "xfrm_algo", false},
		{"ctr virtio_pci", "", false},
		{"char-major-10-200", "tun", false},
		{"crypto-geniv(x)", "geniv", false},
		{"fs-used", "used", false},
		{"pci:v00008086d0001", "cardlib card", true},
		{"card", "cardlib card", true},
	} {
		for _, m := range []*Modules{whole, small} {
			got, err := m.Resolve(strings.Fields(c.names)...)
			if c.hardware && m == small {
				if !errors.Is(err, ErrNoModule) {
					t.Errorf("%s in the small index: %v, %v", c.names, got, err)
				}
			} else if err != nil || base(got) != c.want {
				t.Errorf("%s: %v, %v, want %s", c.names, got, err, c.want)
			}
		}
	}
	for _, name := range []string{"no_such", "crypto-other", "esp", ""} {
		if got, err := whole.Resolve("esp4", name); !errors.Is(err, ErrNoModule) {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
	if got := base(whole.Available("no_such", "seqiv", "esp4", "ctr")); got != "geniv seqiv xfrm_algo esp4" {
		t.Errorf("available: %s", got)
	}
}

// What a guest needs is unpacked in its place, the rest stays as it was, and everything the index names is there.
func TestDepmod(t *testing.T) {
	t.Parallel()
	m := indexed(t)
	for name, file := range m.files {
		if !exists(filepath.Join(m.dir, file)) {
			t.Errorf("%s: no file %s", name, file)
		}
	}
	for name, want := range map[string]string{
		"esp4": "kernel/net/ipv4/esp4.ko", "xfrm_algo": "kernel/net/xfrm/xfrm-algo.ko", "tun": "kernel/drivers/net/tun.ko",
		"card": "kernel/drivers/net/card/card.ko.gz",
	} {
		if m.files[name] != want {
			t.Errorf("%s is %s, want %s", name, m.files[name], want)
		}
	}
	got, err := os.ReadFile(filepath.Join(m.dir, m.files["esp4"]))
	if err != nil || !bytes.Equal(got, module("license=GPL", "alias=xfrm-type-2-50", "depends=xfrm_algo", "softdep=pre: seqiv no-such post: echainiv")) {
		t.Errorf("esp4: %d bytes, %v", len(got), err)
	}
	if exists(filepath.Join(m.dir, "kernel/net/ipv4/esp4.ko.gz")) {
		t.Error("esp4 is there twice")
	}
	for name, bad := range map[string][]byte{"no module": []byte("x"), "cut short": gzipped(module())[:20], "without modinfo": vmlinux(100)} {
		dir := tree(t, map[string][]byte{"kernel/net/bad.ko.gz": bad})
		if err := depmod(context.Background(), dir); err == nil || exists(filepath.Join(dir, depFile)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := depmod(ctx, someModules(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// A dependency that is missing, and one that goes in a circle.
func TestBrokenIndex(t *testing.T) {
	t.Parallel()
	read := func(dep string) (*Modules, error) {
		return ReadModules(tree(t, map[string][]byte{depFile: []byte(dep)}))
	}
	m, err := read("kernel/a.ko: kernel/b.ko\n")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.Resolve("a"); !errors.Is(err, ErrNoModule) {
		t.Errorf("missing: %v, %v", got, err)
	}
	if m, err = read("a.ko: b.ko\nb.ko: a.ko\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := m.Resolve("a"); err != nil || len(got) != 2 {
		t.Errorf("circle: %v, %v", got, err)
	}
	for _, dep := range []string{"../../etc/a.ko:\n", "/etc/a.ko:\n", "a.ko\n", "text: a.ko\n"} {
		if _, err := read(dep); err == nil {
			t.Errorf("%q was taken", dep)
		}
	}
	if _, err := ReadModules(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without an index: %v", err)
	}
}

// Whatever an index says, nothing outside of its directory is loaded, and what a module needs comes before it.
func FuzzModules(f *testing.F) {
	f.Add("kernel/a.ko: kernel/b.ko.xz\nkernel/b.ko.xz:\n", "alias net-a* a\n", "a")
	f.Add("a.ko: b.ko\nb.ko: a.ko\n", "alias x[ a\nalias x a\n", "x")
	f.Fuzz(func(t *testing.T, dep, alias, name string) {
		m, err := ReadModules(tree(t, map[string][]byte{depFile: []byte(dep), aliasFile: []byte(alias)}))
		if err != nil {
			return
		}
		files, err := m.Resolve(name)
		if err != nil && !errors.Is(err, ErrNoModule) {
			t.Error(err)
		}
		for i, file := range files {
			if !filepath.IsLocal(file) || slices.Contains(files[:i], file) {
				t.Errorf("%q in %q", file, files)
			}
		}
		for name, text := range m.Small().Index() {
			if name == depFile && len(text) > len(dep)*2+64 {
				t.Errorf("an index of %d bytes became one of %d", len(dep), len(text))
			}
		}
	})
}

// No file makes the reader of modules fall over.
func FuzzModinfo(f *testing.F) {
	f.Add(module("depends=a,b", "alias=x", "softdep=pre: c"))
	f.Add(gzipped(module()))
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		plain, err := unpackModule(b)
		if err != nil {
			return
		}
		m, err := parseModinfo(plain)
		if err == nil && slices.Contains(m.depends, "") {
			t.Errorf("%q", m.depends)
		}
	})
}

func TestCompare(t *testing.T) {
	t.Parallel()
	sorted := []string{"", "6.1.0", "6.9.1", "6.12", "6.12.9+deb12", "6.12.10+deb12", "6.12.10+deb12-amd64", "6.12.10+deb13", "linux"}
	for i, a := range sorted {
		for j, b := range sorted {
			if got := compare(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("compare(%q, %q) = %d", a, b, got)
			}
		}
	}
	if got := newest("linux-image-6.12.9+deb12-amd64\nlinux-image-6.12.10+deb12-amd64\nlinux-image-6.12.10+deb12-amd64-unsigned\nlinux-image-6.12.99+deb12-cloud-amd64\nlinux-image-6.12.99+deb12-amd64-dbg\nlinux-image-6.12-amd64\n"); got != "linux-image-6.12.10+deb12-amd64-unsigned" {
		t.Errorf("newest %q", got)
	}
}
