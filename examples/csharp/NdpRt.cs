// ndp_rt.h for C#: its constants, structs and functions as they are, for 64-bit Linux. Inspector.cs makes classes of them.
// C# 7, for .NET and for Mono. tests/capi/test_csharp.py compares every value, offset and signature with the header.
using System;
using System.Runtime.InteropServices;

namespace NdpRt
{
    public enum Status
    {
        Ok = 0,
        Error = 1,
        Input = 2,
        Bundle = 5,
        Engine = 6,
        Missing = 7,
        Storage = 8,
        Closed = 9,
        Device = 10,
        Host = 12,
        Runtime = 32,
        Forked = 33,
        Handle = 34,
        Abi = 35,
        BufferTooSmall = 36,
        QueueFull = 37,
        Timeout = 38,
        Cancelled = 39,
        Busy = 40,
        NoMemory = 41,
        Internal = 42,
        Expired = 43,
        Dropped = 44
    }

    public enum Log
    {
        Debug = 10,
        Info = 20,
        Warning = 30,
        Error = 40
    }

    [Flags]
    public enum Open : uint
    {
        Threshold = 1,
        NoBuild = 2,
        Fallback = 4,
        NewestWins = 8,
        Contours = 16
    }

    public enum Pixel : uint
    {
        Grey8 = 1,
        Grey16 = 2,
        Rgb8 = 3,
        Bgr8 = 4,
        Rgba8 = 5,
        Bgra8 = 6,
        Rgb16 = 7,
        Bgr16 = 8,
        BayerRg8 = 64,
        BayerGr8 = 65,
        BayerGb8 = 66,
        BayerBg8 = 67
    }

    public enum Memory : uint
    {
        Host = 0,
        Cuda = 1
    }

    [StructLayout(LayoutKind.Explicit, Size = 80)]
    public struct Defect
    {
        [FieldOffset(0)] public int XPx;
        [FieldOffset(4)] public int YPx;
        [FieldOffset(8)] public int WidthPx;
        [FieldOffset(12)] public int HeightPx;
        [FieldOffset(16)] public long AreaPx;
        [FieldOffset(24)] public double Peak;
        [FieldOffset(32)] public double XMm;
        [FieldOffset(40)] public double YMm;
        [FieldOffset(48)] public double WidthMm;
        [FieldOffset(56)] public double HeightMm;
        [FieldOffset(64)] public double AreaMm2;
        [FieldOffset(72)] public uint FirstPoint;
        [FieldOffset(76)] public uint PointCount;
    }

    // Where the outline of a defect turns.
    [StructLayout(LayoutKind.Explicit, Size = 8)]
    public struct Point
    {
        [FieldOffset(0)] public int XPx;
        [FieldOffset(4)] public int YPx;
    }

    [StructLayout(LayoutKind.Explicit, Size = 16)]
    public struct Info
    {
        [FieldOffset(0)] public uint StructSize;
        [FieldOffset(4)] public int InputWidthPx;
        [FieldOffset(8)] public int InputHeightPx;
        [FieldOffset(12)] public int LargestBatch;
    }

    [StructLayout(LayoutKind.Explicit, Size = 88)]
    public struct Times
    {
        [FieldOffset(0)] public uint StructSize;
        [FieldOffset(4)] public uint WaitingCount;
        [FieldOffset(8)] public ulong InspectionCount;
        [FieldOffset(16)] public ulong FailureCount;
        [FieldOffset(24)] public double QueueMs;
        [FieldOffset(32)] public double PreprocessMs;
        [FieldOffset(40)] public double EngineMs;
        [FieldOffset(48)] public double PostprocessMs;
        [FieldOffset(56)] public double TotalMs;
        [FieldOffset(64)] public ulong ExpiredCount;
        [FieldOffset(72)] public ulong CancelledCount;
        [FieldOffset(80)] public ulong DroppedCount;
    }

    // The structs with pointers, and the functions.
    internal static class Native
    {
        internal const uint AbiMajor = 1;
        internal const uint AbiMinor = 3;

        private const string Library = "ndp_rt"; // libndp_rt.so, found as the dynamic loader finds libraries
        private const CallingConvention C = CallingConvention.Cdecl;

        [StructLayout(LayoutKind.Explicit, Size = 112)]
        internal struct OpenOptions
        {
            [FieldOffset(0)] public uint StructSize;
            [FieldOffset(4)] public uint Flags;
            [FieldOffset(8)] public IntPtr Device;
            [FieldOffset(16)] public IntPtr Backend;
            [FieldOffset(24)] public IntPtr Precision;
            [FieldOffset(32)] public IntPtr Plan;
            [FieldOffset(40)] public IntPtr BatchSizes;
            [FieldOffset(48)] public uint BatchSizeCount;
            [FieldOffset(52)] public int Threads;
            [FieldOffset(56)] public double Threshold;
            [FieldOffset(64)] public double MmPerPixel;
            [FieldOffset(72)] public uint QueueCapacity;
            [FieldOffset(76)] public uint WhiteLevel16bit;
            [FieldOffset(80)] public IntPtr RequireSignature;
            [FieldOffset(88)] public IntPtr IgnoreMask;
            [FieldOffset(96)] public long SmallestAreaPx;
            [FieldOffset(104)] public double SmallestAreaMm2;
        }

        [StructLayout(LayoutKind.Explicit, Size = 48)]
        internal struct Image
        {
            [FieldOffset(0)] public uint StructSize;
            [FieldOffset(4)] public uint PixelFormat;
            [FieldOffset(8)] public IntPtr Pixels;
            [FieldOffset(16)] public int WidthPx;
            [FieldOffset(20)] public int HeightPx;
            [FieldOffset(24)] public long StrideBytes;
            [FieldOffset(32)] public uint Memory;
            [FieldOffset(36)] public uint DeadlineMs;
            [FieldOffset(40)] public IntPtr CudaStream;
        }

        [StructLayout(LayoutKind.Explicit, Size = 168)]
        internal struct Result
        {
            [FieldOffset(0)] public uint StructSize;
            [FieldOffset(4)] public uint DefectStructSize;
            [FieldOffset(8)] public IntPtr Map;
            [FieldOffset(16)] public long MapStrideBytes;
            [FieldOffset(24)] public long MapCapacityBytes;
            [FieldOffset(32)] public long MapNeededBytes;
            [FieldOffset(40)] public IntPtr Mask;
            [FieldOffset(48)] public long MaskStrideBytes;
            [FieldOffset(56)] public long MaskCapacityBytes;
            [FieldOffset(64)] public long MaskNeededBytes;
            [FieldOffset(72)] public IntPtr Defects;
            [FieldOffset(80)] public uint DefectCapacity;
            [FieldOffset(84)] public uint DefectCount;
            [FieldOffset(88)] public double Score;
            [FieldOffset(96)] public double Threshold;
            [FieldOffset(104)] public int IsDefect;
            [FieldOffset(108)] public uint Reserved;
            [FieldOffset(112)] public double QueueMs;
            [FieldOffset(120)] public double PreprocessMs;
            [FieldOffset(128)] public double EngineMs;
            [FieldOffset(136)] public double PostprocessMs;
            [FieldOffset(144)] public double TotalMs;
            [FieldOffset(152)] public IntPtr Points;
            [FieldOffset(160)] public uint PointCapacity;
            [FieldOffset(164)] public uint PointCount;
        }

        [UnmanagedFunctionPointer(C)]
        internal delegate void LogCallback(IntPtr user, int level, IntPtr message);

        [UnmanagedFunctionPointer(C)]
        internal delegate void DoneCallback(IntPtr user, int status, IntPtr result);

        // Strings are byte arrays of UTF-8 with a final zero, and those that come back are pointers to such.
        [DllImport(Library, CallingConvention = C)]
        internal static extern IntPtr ndp_rt_last_error();

        [DllImport(Library, CallingConvention = C)]
        internal static extern IntPtr ndp_rt_status_name(int status);

        [DllImport(Library, CallingConvention = C)]
        internal static extern uint ndp_rt_abi_version();

        [DllImport(Library, CallingConvention = C)]
        internal static extern IntPtr ndp_rt_version();

        [DllImport(Library, CallingConvention = C)]
        internal static extern int ndp_rt_runtime_start(byte[] python);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int ndp_rt_runtime_describe(byte[] buffer, UIntPtr capacity, out UIntPtr needed);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int ndp_rt_log_set(LogCallback callback, IntPtr user, int level);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int ndp_rt_inspector_open(
            byte[] bundle, ref OpenOptions options, out InspectorHandle inspector);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int ndp_rt_inspector_close(IntPtr inspector);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int ndp_rt_inspector_info(InspectorHandle inspector, ref Info info);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int ndp_rt_inspector_describe(
            InspectorHandle inspector, byte[] buffer, UIntPtr capacity, out UIntPtr needed);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int ndp_rt_inspector_warm_up(InspectorHandle inspector, int count);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int ndp_rt_inspector_inspect(
            InspectorHandle inspector, ref Image image, ref Result result);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int ndp_rt_inspector_inspect_batch(
            InspectorHandle inspector, [In] Image[] images, UIntPtr count, [In, Out] Result[] results);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int ndp_rt_inspector_inspect_large(
            InspectorHandle inspector, ref Image image, int overlap_px, ref Result result);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int ndp_rt_inspector_submit(
            InspectorHandle inspector, ref Image image, IntPtr result, DoneCallback done, IntPtr user, IntPtr job);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int ndp_rt_job_wait(IntPtr job, int timeout_ms);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int ndp_rt_inspector_cancel(InspectorHandle inspector, IntPtr result);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int ndp_rt_inspector_get_threshold(InspectorHandle inspector, out double threshold);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int ndp_rt_inspector_set_threshold(InspectorHandle inspector, double threshold);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int ndp_rt_inspector_set_reference(InspectorHandle inspector, ref Image image);

        [DllImport(Library, CallingConvention = C)]
        internal static extern int ndp_rt_timings(InspectorHandle inspector, ref Times times);
    }

    // Closes its inspector once no variable refers to it; calls in progress keep it.
    public sealed class InspectorHandle : SafeHandle
    {
        public InspectorHandle() : base(IntPtr.Zero, true)
        {
        }

        public override bool IsInvalid
        {
            get { return handle == IntPtr.Zero; }
        }

        protected override bool ReleaseHandle()
        {
            return Native.ndp_rt_inspector_close(handle) == (int)Status.Ok;
        }
    }
}
