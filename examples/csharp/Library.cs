// What is not an inspector's: the library's versions, runtime and log, and the exception for its errors.
using System;
using System.Runtime.InteropServices;
using System.Text;

namespace NdpRt
{
    public sealed class NdpRtException : Exception
    {
        public NdpRtException(Status status, string message) : base(message)
        {
            Status = status;
        }

        public Status Status { get; }
    }

    // The library itself: versions, its runtime, its log.
    public static class Library
    {
        private static readonly Native.LogCallback OnLogDelegate = OnLog; // never collected, whoever listens
        private static Action<Log, string> listener;

        public static string Version => Text(Native.ndp_rt_version());

        public static bool AbiFits
        {
            get
            {
                uint version = Native.ndp_rt_abi_version();
                return version >> 16 == Native.AbiMajor && (version & 0xffff) >= Native.AbiMinor;
            }
        }

        // Start the runtime with an interpreter; null: as ndp_rt_runtime_start chooses. The first Inspector does it too.
        public static void Start(string python = null)
        {
            Check(Native.ndp_rt_runtime_start(Utf8(python)));
        }

        // The versions of all that is in use, "name version" a line.
        public static string Describe()
        {
            return ReadText(Native.ndp_rt_runtime_describe);
        }

        // Have messages of `level` and above given to `function`, from any thread; null: no longer. It must not call the
        // library; what it throws is dropped.
        public static void SetLog(Action<Log, string> function, Log level = Log.Warning)
        {
            listener = function;
            Check(Native.ndp_rt_log_set(function == null ? null : OnLogDelegate, IntPtr.Zero, (int)level));
        }

        internal static void Check(int status)
        {
            if (status != (int)Status.Ok)
                throw MakeError(status);
        }

        internal static NdpRtException MakeError(int status)
        {
            return new NdpRtException((Status)status, Text(Native.ndp_rt_last_error()));
        }

        // Maps and masks have their sizes, so what may be too small is the list of defects, which then holds the highest
        // peaks while everything else is complete.
        internal static void CheckFilled(int status)
        {
            if (status != (int)Status.BufferTooSmall)
                Check(status);
        }

        internal delegate int TextFunction(byte[] buffer, UIntPtr capacity, out UIntPtr needed);

        internal static string ReadText(TextFunction read)
        {
            var buffer = new byte[512];
            int status = read(buffer, (UIntPtr)buffer.Length, out UIntPtr needed);
            if (status == (int)Status.BufferTooSmall)
            {
                buffer = new byte[(int)needed];
                status = read(buffer, (UIntPtr)buffer.Length, out needed);
            }
            Check(status);
            return Encoding.UTF8.GetString(buffer, 0, (int)needed - 1);
        }

        internal static byte[] Utf8(string text)
        {
            if (text == null)
                return null;
            if (text.IndexOf('\0') >= 0)
                throw new ArgumentException("the text holds a zero, which would end it");
            return Encoding.UTF8.GetBytes(text + "\0");
        }

        internal static string Text(IntPtr text)
        {
            int length = 0;
            while (Marshal.ReadByte(text, length) != 0)
                length++;
            var bytes = new byte[length];
            Marshal.Copy(text, bytes, 0, length);
            return Encoding.UTF8.GetString(bytes);
        }

        private static void OnLog(IntPtr user, int level, IntPtr message)
        {
            try
            {
                listener?.Invoke((Log)level, Text(message));
            }
            catch (Exception)
            {
                // It must not pass through C, and the log is where it would be told.
            }
        }
    }
}
