/* The processor's features as the operating system allows them.
 *
 * gcc and clang read CPUID together with XCR0, so an AVX-512 processor under a kernel that does not save the registers
 * counts as not having them. The name must be a literal there, hence the list. */
#ifndef FASTNN_CPU_H
#define FASTNN_CPU_H

#include <string.h>

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
static int fnn_cpu_supports(const char *feature)
{
    __builtin_cpu_init();
#define FNN_FEATURE(name) if (strcmp(feature, name) == 0) return __builtin_cpu_supports(name) != 0
    FNN_FEATURE("avx2");
    FNN_FEATURE("fma");
    FNN_FEATURE("bmi");
    FNN_FEATURE("bmi2");
    FNN_FEATURE("avx512f");
    FNN_FEATURE("avx512cd");
    FNN_FEATURE("avx512bw");
    FNN_FEATURE("avx512dq");
    FNN_FEATURE("avx512vl");
#undef FNN_FEATURE
    return 0;
}
#elif defined(_MSC_VER) && defined(_M_X64)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
/* PF_AVX2_INSTRUCTIONS_AVAILABLE and PF_AVX512F_INSTRUCTIONS_AVAILABLE. Windows names no finer features; each
 * processor with AVX2 has FMA and BMI, and each one with AVX-512F that Windows runs on has CD, BW, DQ and VL. */
static int fnn_cpu_supports(const char *feature)
{
    return IsProcessorFeaturePresent(strncmp(feature, "avx512", 6) == 0 ? 41 : 40);
}
#else
static int fnn_cpu_supports(const char *feature)
{
    (void)feature;
    return 0;
}
#endif

static const char *fnn_compiler(void)
{
#if defined(__clang__)
    return "clang " __clang_version__;
#elif defined(__GNUC__)
    return "gcc " __VERSION__;
#elif defined(_MSC_VER)
    return "msvc";
#else
    return "unknown";
#endif
}

#endif
