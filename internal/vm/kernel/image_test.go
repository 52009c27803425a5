package kernel

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// vmlinux is as much of one as is looked at.
func vmlinux(n int) []byte {
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, n)...)
	binary.LittleEndian.PutUint16(b[18:], 62)
	copy(b[100:], "Linux version 6.12.9-test (someone@there) #1\n")
	for i := 200; i < len(b); i++ {
		b[i] = byte(i * i >> 7)
	}
	return b
}

// bzImage wraps a payload as the kernel's build does: a header, real-mode code, the payload with the unpacked size
// behind it, and more code.
func bzImage(compressed []byte, size int) []byte {
	const sectors = 3
	b := make([]byte, (sectors+1)*sector+64)
	b[offSetupSects] = sectors
	copy(b[offMagic:], "HdrS")
	binary.LittleEndian.PutUint16(b[offVersion:], 0x20f)
	binary.LittleEndian.PutUint16(b[offKernelVersion:], 0x300)
	copy(b[0x300+sector:], "6.12.9-test (someone@there) #1 SMP\x00")
	payload := binary.LittleEndian.AppendUint32(bytes.Clone(compressed), uint32(size))
	binary.LittleEndian.PutUint32(b[offPayload:], 64)
	binary.LittleEndian.PutUint32(b[offPayloadLength:], uint32(len(payload)))
	return append(append(b, payload...), "code behind it"...)
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

func zstandard(b []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	defer w.Close()
	return w.EncodeAll(b, nil)
}

// compressors by their names; those of other programs may be missing.
func compressors(t testing.TB) map[string]func([]byte) []byte {
	all := map[string]func([]byte) []byte{"gzip": gzipped, "zstd": zstandard}
	// The options of the kernel's build: a filter for x86 code, and one checksum.
	for name, args := range map[string][]string{"xz": {"--check=crc32", "--x86", "--lzma2=preset=6"}, "bzip2": {"-9"}} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Logf("not tried: %s is not here", name)
			continue
		}
		all[name] = func(b []byte) []byte {
			c := exec.Command(path, append(args, "-c")...)
			c.Stdin = bytes.NewReader(b)
			out, err := c.Output()
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
	}
	return all
}

func TestVmlinux(t *testing.T) {
	t.Parallel()
	want := vmlinux(100_000)
	if got, err := Vmlinux(want); err != nil || !bytes.Equal(got, want) {
		t.Errorf("of a vmlinux: %d bytes, %v", len(got), err)
	}
	for name, compress := range compressors(t) {
		image := bzImage(compress(want), len(want))
		got, err := Vmlinux(image)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		for cut := 1; cut < len(image); cut += 1 + len(image)/50 {
			got, err := Vmlinux(image[:cut])
			if cut < len(image)-len("code behind it") && (!errors.Is(err, ErrImage) || got != nil) {
				t.Errorf("%s: cut at %d of %d: %d bytes, %v", name, cut, len(image), len(got), err)
			}
		}
	}
}

func TestNotAKernel(t *testing.T) {
	t.Parallel()
	old := bzImage(gzipped(vmlinux(1000)), 1007)
	binary.LittleEndian.PutUint16(old[offVersion:], 0x207)
	arm := vmlinux(1000)
	binary.LittleEndian.PutUint16(arm[18:], 183)
	for name, c := range map[string]struct {
		image       []byte
		unsupported bool
	}{
		"empty":             {nil, false},
		"text":              {bytes.Repeat([]byte("not a kernel\n"), 100), false},
		"old protocol":      {old, false},
		"arm64":             {arm, false},
		"lz4":               {bzImage([]byte("\x02\x21\x4c\x18 and so on"), 1000), true},
		"not ELF inside":    {bzImage(gzipped(make([]byte, 1000)), 1000), false},
		"less than it says": {bzImage(zstandard(vmlinux(1000)), 5000), false},
		"too large":         {bzImage(zstandard(vmlinux(1000)), 1<<31), false},
		"broken":            {bzImage([]byte("\x28\xb5\x2f\xfd nothing of that kind"), 100), false},
	} {
		got, err := Vmlinux(c.image)
		if !errors.Is(err, ErrImage) || got != nil || errors.Is(err, errors.ErrUnsupported) != c.unsupported {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// A vmlinux that was cut short is known by its program headers.
func TestWhole(t *testing.T) {
	t.Parallel()
	const headers, segment, size = 300, 1000, 3000
	image := vmlinux(segment + size)
	clear(image[headers : headers+2*56])
	binary.LittleEndian.PutUint64(image[32:], headers)
	binary.LittleEndian.PutUint16(image[56:], 2)
	binary.LittleEndian.PutUint64(image[headers+56+8:], segment)
	binary.LittleEndian.PutUint64(image[headers+56+32:], size)
	for n, want := range map[int]error{len(image): nil, segment + size: nil, segment + size - 1: ErrImage, segment: ErrImage, headers + 2*56 - 1: ErrImage} {
		if err := whole(image[:n]); !errors.Is(err, want) {
			t.Errorf("%d bytes: %v, want %v", n, err, want)
		}
	}
	far := slices.Clone(image)
	binary.LittleEndian.PutUint64(far[32:], 1<<63)
	if err := whole(far); !errors.Is(err, ErrImage) {
		t.Errorf("program headers that are nowhere: %v", err)
	}
	path := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(path, image[:segment], 0o644); err != nil {
		t.Fatal(err)
	}
	var e *Error
	if _, err := (Cache{}).Find(path); !errors.Is(err, ErrImage) || !errors.As(err, &e) || e.Remedy == "" {
		t.Errorf("to be booted: %v", err)
	}
}

func TestRelease(t *testing.T) {
	t.Parallel()
	for name, image := range map[string][]byte{"vmlinux": vmlinux(1000), "bzImage": bzImage(gzipped(vmlinux(1000)), 1007)} {
		if r, err := Release(image); r != "6.12.9-test" || err != nil {
			t.Errorf("%s: %q, %v", name, r, err)
		}
	}
	unnamed := bzImage(nil, 0)
	binary.LittleEndian.PutUint16(unnamed[offKernelVersion:], 0)
	outside := bzImage(nil, 0)
	binary.LittleEndian.PutUint16(outside[offKernelVersion:], 0xfff0)
	path := vmlinux(1000)
	copy(path[100:], "Linux version ../../x \n")
	for name, image := range map[string][]byte{"unnamed": unnamed, "outside": outside, "a path": path, "text": []byte("Linux version 6"), "ELF": vmlinux(200)[:90]} {
		if r, err := Release(image); !errors.Is(err, ErrImage) {
			t.Errorf("%s: %q, %v", name, r, err)
		}
	}
}

// Whatever the file, there is an error or an ELF file.
func FuzzVmlinux(f *testing.F) {
	f.Add(bzImage(gzipped(vmlinux(300)), 307))
	f.Add(bzImage(zstandard(vmlinux(300)), 307))
	f.Add(vmlinux(300))
	f.Add([]byte("HdrS"))
	f.Fuzz(func(t *testing.T, b []byte) {
		elf, err := Vmlinux(b)
		if (err == nil) != isELF(elf) || err != nil && !errors.Is(err, ErrImage) {
			t.Errorf("%d bytes, %v", len(elf), err)
		}
		if r, err := Release(b); (err == nil) != (r != "") {
			t.Errorf("release %q, %v", r, err)
		}
	})
}
